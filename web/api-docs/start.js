/* Swagger UI over this server's own document. "Authorize" takes an access token or an API key; it is kept in memory only. */
window.addEventListener('load', () => {
  window.SwaggerUIBundle({
    url: '/api/v1/openapi.json',
    dom_id: '#api',
    deepLinking: true,
    docExpansion: 'none',
    filter: true,
    tagsSorter: 'alpha',
    tryItOutEnabled: true,
    persistAuthorization: false,
    // No badge that asks a service elsewhere whether the document is valid.
    validatorUrl: null,
  });
});
