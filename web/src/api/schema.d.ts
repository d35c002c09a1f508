/**
 * The REST API in the shape of openapi-typescript: what the pages call so far, until it is generated from
 * /api/v1/openapi.json.
 */
export interface components {
  schemas: {
    Page: { next: string | null; total: number | null };
    SegmentCode: { value: string; scheme: string; meaning: string };
    SegmentStatistics: { voxels: number; volume_mm3: number; centroid_lps_mm: number[] | null };
    Segment: {
      segment_number: number;
      label: string;
      code: components['schemas']['SegmentCode'];
      color: string;
      statistics: components['schemas']['SegmentStatistics'];
    };
    Segmentation: {
      id: string;
      project_id: string;
      study_instance_uid: string;
      series_instance_uid: string;
      label?: string;
      version: number;
      state: 'proposal' | 'draft' | 'submitted' | 'approved' | 'rejected';
      segments: components['schemas']['Segment'][];
    };
    Model: { name: string; version: string; title?: string; description?: string };
    ProblemDetails: { type: string; title: string; detail?: string };
    NewPrediction: { model: string; version?: string; project_id: string; series_instance_uid: string };
    Prediction: {
      id: string;
      job_id: string;
      model: string;
      state: 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled' | 'refused';
      segmentation_id?: string | null;
      problem?: components['schemas']['ProblemDetails'] | null;
    };
    Job: {
      id: string;
      kind: string;
      state: 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';
      progress: number;
      message?: string;
    };
    Membership: { project_id: string; project_name: string; role: string; permissions: string[] };
    Me: { id: string; username: string; is_admin: boolean; projects: components['schemas']['Membership'][] };
  };
}

type Answer<T> = { responses: { 200: { content: { 'application/json': T } } } };
type Items<T> = Answer<components['schemas']['Page'] & { items: T[] }>;

export interface paths {
  '/api/v1/users/me': { get: Answer<components['schemas']['Me']> };
  '/api/v1/segmentations': {
    get: { parameters: { query: { series_instance_uid: string } } } & Items<components['schemas']['Segmentation']>;
  };
  '/api/v1/models': { get: Items<components['schemas']['Model']> };
  '/api/v1/predictions': {
    post: {
      requestBody: { content: { 'application/json': components['schemas']['NewPrediction'] } };
      responses: { 202: { content: { 'application/json': components['schemas']['Prediction'] } } };
    };
  };
  '/api/v1/predictions/{prediction_id}': {
    get: { parameters: { path: { prediction_id: string } } } & Answer<components['schemas']['Prediction']>;
  };
  '/api/v1/jobs/{job_id}': {
    get: { parameters: { path: { job_id: string } } } & Answer<components['schemas']['Job']>;
  };
}
