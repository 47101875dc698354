// `memory-store`: keeps objects in memory, for as long as the session is open.
//
// It shows what a storage has to do. One that keeps anything says the same to a server or a folder.
//
// What the host and this component say to each other is described in `wit/`. A list of bytes is a `Uint8Array`, a 64-bit
// number a `BigInt`, a record an object with names in camelCase, an option `undefined` or the value. An error is thrown,
// and its kind decides whether the host tries again.

export const metadata = {
  describe: () => ({
    name: "memory-store",
    version: "0.1.0",
    description: "keeps objects in memory, for as long as the session is open",
    settingsSchema: '{ "type": "object", "additionalProperties": false }',
    laws: 1,
  }),
};

const failure = (kind, message) => ({ kind, message, retryAfterMs: undefined });

class Session {
  #objects = new Map();

  static open(settings) {
    for (const [name] of settings) throw failure("permanent", `there is no setting \`${name}\``);
    return new Session();
  }

  traits() {
    return { maxObject: 32n << 20n, putIfAbsent: true, rangedGet: true, atomicPut: true };
  }

  check() {}

  put(key, body, ifAbsent) {
    if (ifAbsent && this.#objects.has(key)) throw failure("exists", `\`${key}\` is there already`);
    this.#objects.set(key, body);
  }

  get(key, offset, length) {
    const start = Number(offset);
    return this.#object(key).slice(start, length === undefined ? undefined : start + Number(length));
  }

  stat(key) {
    return { key, size: BigInt(this.#object(key).length), modifiedMs: undefined, etag: undefined };
  }

  listKeys(prefix, after, limit) {
    const wanted = (key) => key.startsWith(prefix) && (after === undefined || key > after);
    const keys = [...this.#objects.keys()].filter(wanted).sort();
    return keys.slice(0, limit).map((key) => this.stat(key));
  }

  delete(keys) {
    for (const key of keys) this.#objects.delete(key);
  }

  #object(key) {
    const body = this.#objects.get(key);
    if (body === undefined) throw failure("not-found", `there is no \`${key}\``);
    return body;
  }
}

export const storage = { Session };
