/** QIDO-RS and WADO-RS metadata (PS3.18 10.6, 10.4) as the pages read them. */
import type { DicomDataset } from '../lib/dicom-json';
import { authorizedFetch } from './authorized-fetch';
import { failureOfResponse } from './failure';

export const DICOM_WEB_ROOT = '/dicom-web';

export interface StudySearch {
  patientName: string;
  patientId: string;
  modality: string | null;
}

export async function queryStudies(
  search: StudySearch,
  page: { limit: number; offset: number },
  signal: AbortSignal,
): Promise<DicomDataset[]> {
  const query = new URLSearchParams({ limit: String(page.limit), offset: String(page.offset) });
  if (search.patientName) query.set('PatientName', `*${search.patientName}*`);
  if (search.patientId) query.set('PatientID', `*${search.patientId}*`);
  if (search.modality) query.set('ModalitiesInStudy', search.modality);
  for (const keyword of ['StudyDescription', 'ModalitiesInStudy', 'NumberOfStudyRelatedSeries'])
    query.append('includefield', keyword);
  query.append('includefield', 'NumberOfStudyRelatedInstances');
  return getDicomJson(`/studies?${query}`, signal);
}

export function queryStudy(studyUid: string, signal: AbortSignal): Promise<DicomDataset[]> {
  return getDicomJson(`/studies?StudyInstanceUID=${studyUid}&includefield=StudyDescription`, signal);
}

/** A page of studies by a list of UIDs (PS3.18 8.3.4.2), so few that they fit into an address. */
export function queryStudiesByUid(studyUids: string[], signal: AbortSignal): Promise<DicomDataset[]> {
  const query = new URLSearchParams({
    StudyInstanceUID: studyUids.join(','),
    limit: String(studyUids.length),
  });
  return getDicomJson(`/studies?${query}&includefield=StudyDescription`, signal);
}

export function querySeries(studyUid: string, signal: AbortSignal): Promise<DicomDataset[]> {
  return getDicomJson(`/studies/${studyUid}/series?includefield=SeriesDescription`, signal);
}

export function retrieveSeriesMetadata(
  studyUid: string,
  seriesUid: string,
  signal: AbortSignal,
): Promise<DicomDataset[]> {
  return getDicomJson(`/studies/${studyUid}/series/${seriesUid}/metadata`, signal);
}

export function framesUrl(studyUid: string, seriesUid: string, sopUid: string): string {
  return `${DICOM_WEB_ROOT}/studies/${studyUid}/series/${seriesUid}/instances/${sopUid}/frames`;
}

async function getDicomJson(path: string, signal: AbortSignal): Promise<DicomDataset[]> {
  const response = await authorizedFetch(DICOM_WEB_ROOT + path, {
    headers: { Accept: 'application/dicom+json' },
    signal,
  });
  if (response.status === 204) return [];
  if (!response.ok) throw await failureOfResponse(response);
  return response.json();
}
