/**
 * GET /api/v1/segmentations/{id}/masks: all masks of one version in one body (application/octet-stream):
 * a little-endian uint32 with the length of the JSON header, the header, then per segment its voxels as packed bits
 * (lowest bit first) in [k, j, i] order. The header names the byte range of each segment behind it.
 */
import { authorizedFetch } from './authorized-fetch';
import { api, bodyOf, type Segmentation } from './client';
import { failureOfResponse } from './failure';
import type { components } from './schema';

type Schemas = components['schemas'];
export type DescribedSegment = Schemas['DescribedSegment'];
export type MaskVersion = Schemas['segmentations_schemas_Version'];
export type SegmentationState = Segmentation['state'];

/** 512 slices of 1024 x 1024 are far beyond what a browser shows; a header that claims more is wrong. */
const MAX_VOXELS = 512 * 1024 * 1024;

interface Header {
  shape_kji: [number, number, number];
  affine_lps: number[];
  segments: { segment_number: number; offset: number; length: number }[];
}

export interface SegmentMask {
  segmentNumber: number;
  /** Packed bits in [k, j, i] order. */
  bits: Uint8Array;
}

export interface Masks {
  shapeKji: [number, number, number];
  /** Row-major 4x4 from voxel (i, j, k) to LPS mm. */
  affineLps: number[];
  segments: SegmentMask[];
}

/** Of one version, which never changes. */
export async function fetchMasks(
  segmentationId: string,
  version: number,
  signal?: AbortSignal,
): Promise<Masks> {
  const response = await authorizedFetch(
    `/api/v1/segmentations/${segmentationId}/versions/${version}/masks`,
    {
      headers: { Accept: 'application/octet-stream' },
      ...(signal && { signal }),
    },
  );
  if (!response.ok) throw await failureOfResponse(response);
  return decodeMasks(await response.arrayBuffer());
}

export function decodeMasks(body: ArrayBuffer): Masks {
  const headerLength = new DataView(body).getUint32(0, true);
  const header: Header = JSON.parse(new TextDecoder().decode(new Uint8Array(body, 4, headerLength)));
  const [slices, rows, columns] = header.shape_kji;
  const voxels = slices * rows * columns;
  if (!(voxels > 0 && voxels <= MAX_VOXELS)) throw new RangeError('mask shape out of range');
  const start = 4 + headerLength;
  return {
    shapeKji: header.shape_kji,
    affineLps: header.affine_lps.flat(),
    segments: header.segments.map((segment) => {
      if (segment.length !== Math.ceil(voxels / 8))
        throw new RangeError('mask length does not fit its shape');
      return {
        segmentNumber: segment.segment_number,
        bits: new Uint8Array(body, start + segment.offset, segment.length),
      };
    }),
  };
}

export interface SavedSlice {
  segmentNumber: number;
  slice: number;
  /** Packed bits of the slice. */
  bits: Uint8Array;
}

/** The body that saves slices of masks, and the segments where they are called otherwise than before. */
export function encodeSlices(
  shapeKji: readonly [number, number, number],
  slices: readonly SavedSlice[],
  describe: readonly DescribedSegment[] | null,
  why: string,
): Uint8Array<ArrayBuffer> {
  const length = Math.ceil((shapeKji[1] * shapeKji[2]) / 8);
  const header = new TextEncoder().encode(
    JSON.stringify({
      shape_kji: shapeKji,
      slices: slices.map((one, index) => ({
        segment_number: one.segmentNumber,
        slice_index: one.slice,
        offset: index * length,
        length,
      })),
      ...(describe && { describe }),
      why,
    }),
  );
  const body = new Uint8Array(4 + header.length + slices.length * length);
  new DataView(body.buffer).setUint32(0, header.length, true);
  body.set(header, 4);
  for (const [index, one] of slices.entries()) body.set(one.bits, 4 + header.length + index * length);
  return body;
}

export async function saveMasks(
  segmentationId: string,
  version: number,
  body: Uint8Array<ArrayBuffer>,
  key: string,
): Promise<Segmentation> {
  const response = await authorizedFetch(`/api/v1/segmentations/${segmentationId}/versions`, {
    method: 'POST',
    headers: {
      'Content-Type': 'application/octet-stream',
      'If-Match': `"${version}"`,
      'Idempotency-Key': key,
    },
    body,
  });
  if (!response.ok) throw await failureOfResponse(response);
  return response.json();
}

export const beginSegmentation = (body: Schemas['EmptySegmentation']) =>
  bodyOf(api.POST('/api/v1/segmentations/empty', { body }));

export const getSegmentation = (segmentation_id: string) =>
  bodyOf(api.GET('/api/v1/segmentations/{segmentation_id}', { params: { path: { segmentation_id } } }));

const at = (segmentation_id: string, version: number) => ({
  params: { path: { segmentation_id }, header: { 'If-Match': `"${version}"` } },
});

export const changeState = (id: string, version: number, state: SegmentationState) =>
  bodyOf(
    api.PATCH('/api/v1/segmentations/{segmentation_id}', { ...at(id, version), body: { state, why: '' } }),
  );

export const restoreMasks = (id: string, base: number, version: number) =>
  bodyOf(
    api.POST('/api/v1/segmentations/{segmentation_id}/restore', {
      ...at(id, base),
      body: { version, why: '' },
    }),
  );

export const listMaskVersions = async (segmentation_id: string, signal: AbortSignal) =>
  (
    await bodyOf(
      api.GET('/api/v1/segmentations/{segmentation_id}/versions', {
        params: { path: { segmentation_id } },
        signal,
      }),
    )
  ).items;
