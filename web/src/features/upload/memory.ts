/**
 * What a later visit needs to go on with an upload, in IndexedDB until it is finished: identifiers of the server's and
 * fingerprints of files. Names are not kept - they may name patients - but where the browser lends a handle to a folder,
 * that handle is, until the session ends.
 */

import type { Drop } from './messages';
import type { Way } from './plan';

const NAME = 'annotomy-uploads';
const VERSION = 1;
/** As long as the server keeps an upload to which nothing is added. */
const KEPT_MS = 7 * 24 * 3600_000;

export interface KeptDrop extends Drop {
  salt: string;
  files: number;
  bytes: number;
  touchedAt: number;
  handles: FileSystemHandle[];
}

export interface KeptManifest {
  id: string;
  dropId: string;
  /** In the order of the manifest. */
  items: { fingerprint: string; way: Way; form: string | null }[];
  /** Uploads whose end has not been seen; `items` are positions in the manifest. */
  parcels: KeptParcel[];
}

export interface KeptParcel {
  uploadId: string;
  items: number[];
  own: boolean;
}

export class Memory {
  private constructor(private readonly db: IDBDatabase) {}

  /** Null where the browser keeps nothing (some private windows): uploads then cannot go on after a closed tab. */
  static async open(): Promise<Memory | null> {
    try {
      const opening = indexedDB.open(NAME, VERSION);
      opening.onupgradeneeded = () => {
        opening.result.createObjectStore('drops', { keyPath: 'id' });
        opening.result
          .createObjectStore('manifests', { keyPath: 'id' })
          .createIndex('dropId', 'dropId', { unique: false });
      };
      return new Memory(await answerOf(opening));
    } catch (error) {
      if (error instanceof DOMException) return null;
      throw error;
    }
  }

  /** One's unfinished drops, newest first. What nobody has gone on with for too long is forgotten. */
  async drops(ownerId: string, now: number): Promise<KeptDrop[]> {
    const all: KeptDrop[] = await answerOf(this.db.transaction('drops').objectStore('drops').getAll());
    for (const drop of all) if (now - drop.touchedAt > KEPT_MS) await this.forget(drop.id);
    return all
      .filter((drop) => drop.ownerId === ownerId && now - drop.touchedAt <= KEPT_MS)
      .sort((a, b) => b.createdAt - a.createdAt);
  }

  async drop(id: string): Promise<KeptDrop | undefined> {
    return answerOf(this.db.transaction('drops').objectStore('drops').get(id));
  }

  async keepDrop(drop: KeptDrop): Promise<void> {
    await this.write('drops', (store) => store.put(drop));
  }

  async keepManifest(manifest: KeptManifest): Promise<void> {
    await this.write('manifests', (store) => store.put(manifest));
  }

  async manifests(dropId: string): Promise<KeptManifest[]> {
    return answerOf(this.db.transaction('manifests').objectStore('manifests').index('dropId').getAll(dropId));
  }

  async forget(dropId: string): Promise<void> {
    const kept = await this.manifests(dropId);
    await this.write('manifests', (store) => {
      for (const manifest of kept) store.delete(manifest.id);
    });
    await this.write('drops', (store) => store.delete(dropId));
  }

  async letGoOfHandles(): Promise<void> {
    const all: KeptDrop[] = await answerOf(this.db.transaction('drops').objectStore('drops').getAll());
    await this.write('drops', (store) => {
      for (const drop of all) if (drop.handles.length > 0) store.put({ ...drop, handles: [] });
    });
  }

  close(): void {
    this.db.close();
  }

  private async write(name: 'drops' | 'manifests', change: (store: IDBObjectStore) => void): Promise<void> {
    const transaction = this.db.transaction(name, 'readwrite');
    change(transaction.objectStore(name));
    await new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
    });
  }
}

/** Handles name folders: the session's end takes them away, and the folder is asked for again. */
export async function forgetHandles(): Promise<void> {
  const memory = await Memory.open();
  await memory?.letGoOfHandles();
  memory?.close();
}

function answerOf<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
