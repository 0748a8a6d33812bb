/**
 * A WebAssembly module under construction and its binary form. Imports come before definitions. What is not exported needs no name;
 * names of functions are kept in the name section only on request, since they cost bytes.
 */
import { Bytes } from './bytes.ts';
import { Code, typeCode, type Func, type Global, type Local, type ValueType } from './code.ts';

/** In pages of 64 KiB. Shared memory needs a maximum. */
export interface MemoryLimits {
  readonly initial: number;
  readonly maximum?: number;
  readonly shared?: boolean;
}

const kinds = { func: 0, table: 1, memory: 2, global: 3 } as const;
const sections = { custom: 0, type: 1, import: 2, function: 3, memory: 5, global: 6, export: 7, data: 11, code: 10 } as const;
const FUNCTION_TYPE = 0x60;
const NAME_OF_FUNCTIONS = 1;

/** One local handle for each parameter. */
type Handles<P extends readonly ValueType[]> = { readonly [K in keyof P]: Local };

export class Module {
  private readonly types: string[] = [];
  private readonly imports: Bytes[] = [];
  private readonly functions: { readonly func: Func; readonly type: number; readonly body: Uint8Array | null }[] = [];
  private readonly memories: Bytes[] = [];
  private readonly globals: Bytes[] = [];
  private readonly exports: Bytes[] = [];
  private readonly segments: Bytes[] = [];
  private globalCount = 0;
  private memoryCount = 0;

  private typeIndex(params: readonly ValueType[], results: readonly ValueType[]): number {
    const key = `${params.join()}>${results.join()}`;
    const known = this.types.indexOf(key);
    return known >= 0 ? known : this.types.push(key) - 1;
  }
  private defined(): boolean {
    return this.functions.some(({ body }) => body !== null) || this.memories.length > 0 || this.globals.length > 0;
  }
  private import(from: string, name: string, kind: keyof typeof kinds): Bytes {
    if (this.defined()) throw new Error(`import ${from}.${name} after a definition`);
    const entry = new Bytes().text(from).text(name).byte(kinds[kind]);
    this.imports.push(entry);
    return entry;
  }

  importFunc(from: string, name: string, params: readonly ValueType[], results: readonly ValueType[]): Func {
    const type = this.typeIndex(params, results);
    this.import(from, name, 'func').unsigned(type);
    const func: Func = { index: this.functions.length, name, params, results };
    this.functions.push({ func, type, body: null });
    return func;
  }
  importMemory(from: string, name: string, limits: MemoryLimits): void {
    this.import(from, name, 'memory').bytes(encodeLimits(limits));
    this.memoryCount++;
  }
  importGlobal(from: string, name: string, type: ValueType, mutable = false): Global {
    this.import(from, name, 'global').byte(typeCode(type)).byte(mutable ? 1 : 0);
    return { index: this.globalCount++, type, mutable };
  }

  /** The one memory, when it is not imported. */
  memory(limits: MemoryLimits): void {
    if (this.memoryCount++ > 0) throw new Error('a module has one memory');
    this.memories.push(new Bytes().bytes(encodeLimits(limits)));
  }
  /** A global variable; a vector begins with `initial` in every byte. */
  global(type: ValueType, initial: number | bigint, mutable = false): Global {
    const value = new Code([]);
    if (type === 'i64') value.i64(initial);
    else if (type === 'v128') value.v128(new Uint8Array(16).fill(Number(initial)));
    else value[type](Number(initial));
    this.globals.push(new Bytes().byte(typeCode(type)).byte(mutable ? 1 : 0).bytes(value.expression()));
    return { index: this.globalCount++, type, mutable };
  }
  /** Defines a function; `write` receives the code builder and one local for each parameter. Functions call those defined before them. */
  func<const P extends readonly ValueType[]>(
    name: string, params: P, results: readonly ValueType[], write: (code: Code, ...params: Handles<P>) => unknown, options: { readonly export?: boolean } = {},
  ): Func {
    const code = new Code(params);
    write(code, ...(params.map((type, index) => ({ type, index })) as Handles<P>));
    const func: Func = { index: this.functions.length, name, params, results };
    this.functions.push({ func, type: this.typeIndex(params, results), body: code.finish() });
    if (options.export ?? false) this.export(name, func);
    return func;
  }
  export(name: string, what: Func | Global | 'memory'): void {
    const [kind, index] = what === 'memory' ? [kinds.memory, 0] : 'params' in what ? [kinds.func, what.index] : [kinds.global, what.index];
    this.exports.push(new Bytes().text(name).byte(kind).unsigned(index));
  }
  /** Bytes that memory holds from address `offset` on after instantiation. */
  data(offset: number, content: Uint8Array): void {
    this.segments.push(new Bytes().byte(0).bytes(new Code([]).i32(offset).expression()).counted(content));
  }

  /** The module in binary form. */
  encode(options: { readonly names?: boolean } = {}): Uint8Array {
    const own = this.functions.filter((f): f is typeof f & { readonly body: Uint8Array } => f.body !== null);
    const out = new Bytes().bytes([0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00]);
    const section = (id: number, entries: readonly Uint8Array[]): void => {
      if (entries.length === 0) return;
      const content = new Bytes().unsigned(entries.length);
      for (const entry of entries) content.bytes(entry);
      out.byte(id).counted(content.take());
    };
    const taken = (list: readonly Bytes[]): Uint8Array[] => list.map((entry) => entry.take());
    section(sections.type, this.types.map(encodeType));
    section(sections.import, taken(this.imports));
    section(sections.function, own.map(({ type }) => new Bytes().unsigned(type).take()));
    section(sections.memory, taken(this.memories));
    section(sections.global, taken(this.globals));
    section(sections.export, taken(this.exports));
    section(sections.code, own.map(({ body }) => body));
    section(sections.data, taken(this.segments));
    if (options.names ?? false) {
      const names = new Bytes().unsigned(this.functions.length);
      for (const { func } of this.functions) names.unsigned(func.index).text(func.name);
      out.byte(sections.custom).counted(new Bytes().text('name').byte(NAME_OF_FUNCTIONS).counted(names.take()).take());
    }
    return out.take();
  }
}

const encodeLimits = ({ initial, maximum, shared = false }: MemoryLimits): Uint8Array => {
  if (shared && maximum === undefined) throw new Error('shared memory needs a maximum');
  const out = new Bytes().byte((maximum === undefined ? 0 : 1) | (shared ? 2 : 0)).unsigned(initial);
  return (maximum === undefined ? out : out.unsigned(maximum)).take();
};

const encodeType = (key: string): Uint8Array => {
  const out = new Bytes().byte(FUNCTION_TYPE);
  for (const side of key.split('>')) {
    const list = side === '' ? [] : (side.split(',') as ValueType[]);
    out.unsigned(list.length).bytes(list.map(typeCode));
  }
  return out.take();
};
