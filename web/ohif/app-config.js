/* The foreign viewer reads this server only. Its requests carry the HttpOnly cookie that signing in sets for /dicom-web. */
window.config = {
  routerBasename: '/ohif',
  extensions: [],
  modes: [],
  // No guided tour over the first image that somebody opens.
  customizationService: { 'ohif.tours': { $set: [] } },
  showStudyList: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  maxNumberOfWebWorkers: 2,
  investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'annotomy',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'annotomy',
      configuration: {
        friendlyName: 'Annotomy',
        name: 'annotomy',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        wadoUriRoot: '/dicom-web',
        qidoSupportsIncludeField: false,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        omitQuotationForMultipartRequest: true,
        bulkDataURI: { enabled: true, relativeResolution: 'studies' },
      },
    },
  ],
};
