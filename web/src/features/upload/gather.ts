/**
 * The files of what somebody dropped or chose, folders walked, as they are found. Hidden files and folders are left out.
 *
 * Where the browser has the File System Access API, what was given can be kept and opened again by a later visit.
 */
import type { Given } from './messages';

/** Files that are told at once. */
const BATCH = 200;
/** Files of a folder that are opened at once. */
const ABREAST = 32;

/** slice2 before slice10: neighbours travel together, and the list reads well. */
const BY_NAME = new Intl.Collator('en', { numeric: true });

export interface Source {
  /** Empty where the browser lends none. */
  handles: FileSystemHandle[];
  batches: () => AsyncGenerator<Given[]>;
}

type LendsHandle = DataTransferItem & { getAsFileSystemHandle?: () => Promise<FileSystemHandle | null> };
type Picks = Window & { showDirectoryPicker?: () => Promise<FileSystemDirectoryHandle> };
type Asks = FileSystemHandle & {
  requestPermission?: (mode: { mode: 'read' }) => Promise<PermissionState>;
};

/** Must be called while the drop event is handled: afterwards the browser tells nothing of it any more. */
export function sourceOfDrop(transfer: DataTransfer): Promise<Source> {
  const items = [...transfer.items].filter((item) => item.kind === 'file');
  const entries = items.map((item) => item.webkitGetAsEntry());
  const files = items.map((item) => item.getAsFile());
  const lending = items.map((item) => (item as LendsHandle).getAsFileSystemHandle?.() ?? null);
  return Promise.all(lending.map((one) => one?.catch(() => null) ?? null)).then((handles) => {
    const lent = handles.filter((one) => one !== null);
    if (lent.length === items.length && lent.length > 0) return sourceOfHandles(lent);
    return {
      handles: [],
      batches: () =>
        batched(async function* () {
          for (const [n, entry] of entries.entries()) {
            const file = files[n];
            if (entry) yield* ofEntry(entry, '');
            else if (file) yield { path: file.name, file };
          }
        }),
    };
  });
}

export function sourceOfHandles(handles: FileSystemHandle[]): Source {
  return {
    handles,
    batches: () =>
      batched(async function* () {
        for (const handle of handles) yield* ofHandle(handle, '');
      }),
  };
}

/** Of an input field; one for folders tells the way to each file. */
export function sourceOfFiles(list: FileList): Source {
  const files = [...list]
    .map((file) => ({ path: file.webkitRelativePath || file.name, file }))
    .sort((a, b) => BY_NAME.compare(a.path, b.path));
  return {
    handles: [],
    batches: () =>
      batched(async function* () {
        for (const given of files) if (!given.path.split('/').some(isHidden)) yield given;
      }),
  };
}

export function canPickFolders(): boolean {
  return (window as Picks).showDirectoryPicker !== undefined;
}

/** Null when the person changes their mind. */
export async function pickFolder(): Promise<Source | null> {
  try {
    const handle = await (window as Picks).showDirectoryPicker?.();
    return handle ? sourceOfHandles([handle]) : null;
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') return null;
    throw error;
  }
}

/** What was kept of an earlier visit, when the person lets it be read again. */
export async function sourceOfKept(handles: FileSystemHandle[]): Promise<Source | null> {
  if (handles.length === 0) return null;
  for (const handle of handles) {
    const answer = await (handle as Asks).requestPermission?.({ mode: 'read' });
    if (answer !== 'granted') return null;
  }
  return sourceOfHandles(handles);
}

async function* batched(walk: () => AsyncGenerator<Given>): AsyncGenerator<Given[]> {
  let batch: Given[] = [];
  for await (const given of walk()) {
    batch.push(given);
    if (batch.length >= BATCH) {
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}

async function* ofHandle(handle: FileSystemHandle, folder: string): AsyncGenerator<Given> {
  if (isHidden(handle.name)) return;
  const path = folder + handle.name;
  if (handle.kind === 'file') {
    yield { path, file: await (handle as FileSystemFileHandle).getFile() };
    return;
  }
  const children: FileSystemHandle[] = [];
  for await (const child of (handle as FileSystemDirectoryHandle).values())
    if (!isHidden(child.name)) children.push(child);
  children.sort((a, b) => BY_NAME.compare(a.name, b.name));
  const files = children.filter((child) => child.kind === 'file') as FileSystemFileHandle[];
  for (let at = 0; at < files.length; at += ABREAST) yield* opened(files.slice(at, at + ABREAST), path);
  for (const child of children) if (child.kind === 'directory') yield* ofHandle(child, `${path}/`);
}

async function* opened(handles: FileSystemFileHandle[], folder: string): AsyncGenerator<Given> {
  const files = await Promise.all(handles.map((handle) => handle.getFile()));
  for (const file of files) yield { path: `${folder}/${file.name}`, file };
}

async function* ofEntry(entry: FileSystemEntry, folder: string): AsyncGenerator<Given> {
  if (isHidden(entry.name)) return;
  const path = folder + entry.name;
  if (entry.isFile) {
    yield { path, file: await fileOf(entry as FileSystemFileEntry) };
    return;
  }
  const children = (await childrenOf(entry as FileSystemDirectoryEntry)).filter(
    ({ name }) => !isHidden(name),
  );
  children.sort((a, b) => BY_NAME.compare(a.name, b.name));
  const plain = children.filter((child) => child.isFile) as FileSystemFileEntry[];
  for (let at = 0; at < plain.length; at += ABREAST) {
    const files = await Promise.all(plain.slice(at, at + ABREAST).map(fileOf));
    for (const file of files) yield { path: `${path}/${file.name}`, file };
  }
  for (const child of children) if (child.isDirectory) yield* ofEntry(child, `${path}/`);
}

async function childrenOf(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const found: FileSystemEntry[] = [];
  for (;;) {
    // Told in parts of a hundred or so, and of none at the end.
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (part.length === 0) return found;
    found.push(...part);
  }
}

function fileOf(entry: FileSystemFileEntry): Promise<File> {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

function isHidden(name: string): boolean {
  return name.startsWith('.');
}
