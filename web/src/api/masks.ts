/**
 * GET /api/v1/segmentations/{id}/masks: all masks of one version in one body (application/octet-stream):
 * a little-endian uint32 with the length of the JSON header, the header, then per segment its voxels as packed bits
 * (lowest bit first) in [k, j, i] order. The header names the byte range of each segment behind it.
 */
import { authorizedFetch } from './authorized-fetch';
import { failureOfResponse } from './failure';

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

export async function fetchMasks(segmentationId: string, signal: AbortSignal): Promise<Masks> {
  const response = await authorizedFetch(`/api/v1/segmentations/${segmentationId}/masks`, {
    headers: { Accept: 'application/octet-stream' },
    signal,
  });
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
