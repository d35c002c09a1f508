/**
 * The operation log on disk, in IndexedDB, so that it survives closed tabs and dead batteries. It holds shapes, masks and
 * identifiers of what is not stored yet, and nothing of it after the server has it.
 */
import type { Operation } from './operations';

const NAME = 'annotomy-outbox';
const OPERATIONS = 'operations';

let opening: Promise<IDBDatabase> | null = null;

function open(): Promise<IDBDatabase> {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(OPERATIONS, { keyPath: 'id' });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opening;
}

export async function readOperations(): Promise<Operation[]> {
  const database = await open();
  return new Promise((resolve, reject) => {
    const request = database.transaction(OPERATIONS).objectStore(OPERATIONS).getAll();
    request.onsuccess = () => resolve((request.result as Operation[]).sort((a, b) => a.at - b.at));
    request.onerror = () => reject(request.error);
  });
}

/** Resolves when the change is on disk. */
export async function writeOperations(put: readonly Operation[], remove: readonly string[]): Promise<void> {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(OPERATIONS, 'readwrite', { durability: 'strict' });
    const store = transaction.objectStore(OPERATIONS);
    for (const id of remove) store.delete(id);
    for (const one of put) store.put(one);
    transaction.oncomplete = () => resolve();
    transaction.onerror = () => reject(transaction.error);
    transaction.onabort = () => reject(transaction.error);
  });
}
