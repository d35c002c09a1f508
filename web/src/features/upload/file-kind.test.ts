import { describe, expect, it } from 'vitest';
import { folderOf, kindOf, labelOf } from './file-kind';

function head(text: string, at = 0): Uint8Array {
  const bytes = new Uint8Array(600);
  for (let n = 0; n < text.length; n++) bytes[at + n] = text.charCodeAt(n);
  return bytes;
}

describe('the kind of a file', () => {
  it.each([
    [head('DICM', 128), 'IM0001', 'dicom'],
    [head('\x08\0'), 'no-preamble', 'dicom'],
    [head('DICM', 128), 'disc/DICOMDIR', 'media'],
    [head('PK\x03\x04'), 'study.zip', 'alone'],
    [head('ustar', 257), 'study.tar', 'alone'],
    [head('\x1f\x8b'), 'brain.nii.gz', 'alone'],
    [head('\x1f\x8b'), 'brain.raw.gz', 'data'],
    [head('\x28\xb5\x2f\xfd'), 'study.tar.zst', 'alone'],
    [head('n+1\0', 344), 'brain.nii', 'alone'],
    [head('n+2\0', 4), 'brain.nii', 'alone'],
    [head('NRRD0005\ntype: short\n'), 'a.nrrd', 'alone'],
    [head('NRRD0005\ntype: short\ndata file: a.raw\n'), 'a.nhdr', 'header'],
    [head('ObjectType = Image\nElementDataFile = LOCAL\n'), 'a.mha', 'alone'],
    [head('ObjectType = Image\nElementDataFile = a.raw\n'), 'a.mhd', 'header'],
    [head('\x89PNG\r\n\x1a\n'), 'a.png', 'picture'],
    [head('II*\0'), 'a.tif', 'picture'],
    [head('{"pixel_spacing_mm"'), 's/Geometry.json', 'form'],
    [head(''), 'a.raw', 'data'],
    [head('hello'), 'readme.txt', 'foreign'],
    [new Uint8Array(), 'empty', 'foreign'],
  ] as const)('%#: %s', (bytes, path, kind) => {
    expect(kindOf(bytes, path)).toBe(kind);
  });
});

describe('the label of a path', () => {
  it('leaves out what the server leaves out of names', () => {
    expect(labelOf('/환자 김/a\u0000b\u200bc\u00a0d\u2028.dcm')).toBe('환자 김/abcd.dcm');
  });

  it('keeps the end of a path that is too long', () => {
    expect(labelOf(`${'a'.repeat(2000)}/1.dcm`)).toMatch(/^a{1018}\/1\.dcm$/);
  });

  it('knows the folder', () => {
    expect([folderOf('a/b/c.dcm'), folderOf('c.dcm')]).toEqual(['a/b', '']);
  });
});
