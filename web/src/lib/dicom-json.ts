/** Reads the DICOM JSON model (PS3.18 F.2): the first value of an attribute as text, number or list. */
export interface DicomAttribute {
  vr?: string;
  Value?: unknown[];
}
export type DicomDataset = Record<string, DicomAttribute>;

export const TAG = {
  studyDate: '00080020',
  studyTime: '00080030',
  modality: '00080060',
  modalitiesInStudy: '00080061',
  studyDescription: '00081030',
  seriesDescription: '0008103E',
  patientName: '00100010',
  patientId: '00100020',
  sopInstanceUid: '00080018',
  sopClassUid: '00080016',
  studyInstanceUid: '0020000D',
  seriesInstanceUid: '0020000E',
  seriesNumber: '00200011',
  instanceNumber: '00200013',
  imagePosition: '00200032',
  imageOrientation: '00200037',
  numberOfFrames: '00280008',
  rows: '00280010',
  columns: '00280011',
  imagerPixelSpacing: '00181164',
  pixelSpacing: '00280030',
  windowCenter: '00281050',
  windowWidth: '00281051',
  studyRelatedSeries: '00201206',
  studyRelatedInstances: '00201208',
  seriesRelatedInstances: '00201209',
} as const;

export function textOf(dataset: DicomDataset, tag: string): string {
  const value = dataset[tag]?.Value?.[0];
  return value === undefined || value === null ? '' : String(value);
}

export function numberOf(dataset: DicomDataset, tag: string): number | null {
  const value = dataset[tag]?.Value?.[0];
  const number = typeof value === 'string' ? Number.parseFloat(value) : value;
  return typeof number === 'number' && Number.isFinite(number) ? number : null;
}

export function numbersOf(dataset: DicomDataset, tag: string): number[] {
  return (dataset[tag]?.Value ?? []).map(Number).filter(Number.isFinite);
}

export function textsOf(dataset: DicomDataset, tag: string): string[] {
  return (dataset[tag]?.Value ?? []).filter((value) => value !== null).map(String);
}

/** A person's name for reading: ideographic first where there is one, family and given parted by a space. */
export function personNameOf(dataset: DicomDataset, tag: string): string {
  const value = dataset[tag]?.Value?.[0];
  if (typeof value === 'string') return readable(value);
  if (typeof value !== 'object' || value === null) return '';
  const groups = value as { Alphabetic?: string; Ideographic?: string; Phonetic?: string };
  const native = groups.Phonetic && /[가-힣]/.test(groups.Phonetic) ? groups.Phonetic : groups.Ideographic;
  const alphabetic = readable(groups.Alphabetic ?? '');
  if (!native) return alphabetic;
  return alphabetic ? `${readable(native)} (${alphabetic})` : readable(native);
}

function readable(name: string): string {
  return name.replaceAll('^', ' ').replace(/\s+/g, ' ').trim();
}

/** DICOM DA (YYYYMMDD) as an ISO date; what is no such date stays as it is. */
export function isoDateOf(dataset: DicomDataset, tag: string): string {
  const text = textOf(dataset, tag);
  const parts = /^(\d{4})(\d{2})(\d{2})$/.exec(text);
  return parts === null ? text : `${parts[1]}-${parts[2]}-${parts[3]}`;
}
