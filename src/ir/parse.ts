/**
 * Reads the text form (see `print.ts`). A graph read so is complete but not yet verified: operands are known values, attributes fit
 * their declarations, and types are what the text says.
 */
import { closest } from './closest.ts';
import { addDims, scaleDim, sizeOf, symbol, isStaticShape, type Dim } from './dim.ts';
import { allocate, isDType, isInteger, rangeOf, type IntegerDType, type TypedArray } from './dtype.ts';
import { MAX_CONSTANT_SIZE } from './fold.ts';
import type { Constant, Graph, Input, Node, Output, Stage, Value } from './graph.ts';
import { iota, random, splat } from './literal.ts';
import { noSite, type AnyOpDef, type Site } from './op.ts';
import { opsOfStage } from './ops/stages.ts';
import type { UniformQuant } from './quant.ts';
import { failAt, tokenize, type Token } from './tokens.ts';
import { tensorType, type TensorType } from './type.ts';
import { WeightStore } from './weights.ts';

export interface ParseOptions {
  /** the side file with the data of large constants */
  readonly weights?: WeightStore | Uint8Array;
  /** declarations of plugins by name, beside those of the graph's stage */
  readonly ops?: ReadonlyMap<string, AnyOpDef>;
}

/** Throws a CompileError that shows the line and a caret where the text is not well formed. */
export const parseGraph = (text: string, { weights, ops }: ParseOptions = {}): Graph =>
  new Parser(text, weights instanceof Uint8Array ? new WeightStore(weights) : weights ?? null, ops ?? new Map()).graph();

interface FilePlace {
  readonly place: Token;
  readonly digest: string;
  readonly offset: number | null;
  readonly length: number;
}

class Parser {
  private readonly text: string;
  private readonly weights: WeightStore | null;
  private readonly tokens: readonly Token[];
  private readonly values = new Map<string, Value>();
  private readonly plugins: ReadonlyMap<string, AnyOpDef>;
  private stage: Stage = 'float';
  private at = 0;

  constructor(text: string, weights: WeightStore | null, plugins: ReadonlyMap<string, AnyOpDef>) {
    this.text = text;
    this.weights = weights;
    this.plugins = plugins;
    this.tokens = tokenize(text);
  }

  graph(): Graph {
    this.word('graph');
    this.mark('@');
    const name = this.take('word', 'string').text;
    this.mark(':');
    this.stage = this.stageName();
    const inputs = this.list('(', ')', () => this.input());
    this.mark('->');
    const outputPlaces: { readonly name: string; readonly value: Token }[] = [];
    this.list('(', ')', () => outputPlaces.push(this.output()));
    this.mark('{');
    const nodes: Node[] = [];
    while (!this.next('}')) {
      const node = this.statement();
      if (node !== null) nodes.push(node);
    }
    if (this.peek().kind !== 'end') this.fail('a text holds one graph; nothing may follow it');
    const outputs = outputPlaces.map<Output>((place) => ({ name: place.name, value: this.known(place.value) }));
    return Object.freeze({ stage: this.stage, name, inputs: Object.freeze(inputs), nodes: Object.freeze(nodes), outputs: Object.freeze(outputs) });
  }

  private stageName(): Stage {
    const token = this.take('word');
    return token.text in opsOfStage ? token.text as Stage : this.fail('a stage is float, quant or kernel', token);
  }

  private input(): Value {
    const name = this.name();
    this.mark(':');
    return this.define(name, (own) => ({ name: own, type: this.type(), def: Object.freeze<Input>({ op: 'input' }) }));
  }

  /** `%value`, or `"ONNX name": %value`. */
  private output(): { name: string; value: Token } {
    if (this.peek().kind !== 'string') {
      const value = this.name();
      return { name: value.text, value };
    }
    const name = this.take('string').text;
    this.mark(':');
    return { name, value: this.name() };
  }

  /** A constant (null) or a node. */
  private statement(): Node | null {
    const name = this.name();
    this.mark('=');
    const op = this.take('word');
    if (op.text === 'const') {
      this.constant(name);
      return null;
    }
    const own = opsOfStage[this.stage];
    const decl = own.get(op.text) ?? this.plugins.get(op.text);
    if (decl === undefined) return this.fail(`there is no op "${op.text}" at this stage`, op, suggestion(op.text, [...own.keys(), ...this.plugins.keys()]));
    const inputs = this.operands(decl, op);
    const attrs = this.attrs(decl, op);
    this.mark(':');
    const type = this.type();
    const site = this.site();
    return this.define(name, (own) => {
      const output = { name: own, type, def: null as unknown as Node };
      output.def = Object.freeze<Node>({ op: decl.name, inputs, attrs, decl, output, site });
      return output;
    }).def as Node;
  }

  private operands(decl: AnyOpDef, op: Token): Node['inputs'] {
    const slots = Object.entries<string>(decl.operands);
    const given = this.list('(', ')', () => this.operand());
    if (given.length > slots.length) this.fail(`"${decl.name}" takes ${slots.length} operands: ${slots.map(([slot]) => slot).join(', ')}`, op);
    return Object.freeze(Object.fromEntries(slots.map(([slot, arity], i) => {
      const operand = given[i] ?? null;
      if (operand === null && arity !== 'optional') this.fail(`operand "${slot}" of "${decl.name}" is missing`, op);
      if (operand !== null && Array.isArray(operand) !== (arity === 'many')) {
        this.fail(`operand "${slot}" of "${decl.name}" must be ${arity === 'many' ? 'a list' : 'one value'}`, op);
      }
      return [slot, operand];
    })));
  }

  private operand(): Value | null | readonly Value[] {
    if (this.peek().text === '[') return this.list('[', ']', () => this.known(this.name()));
    if (this.peek().kind === 'word' && this.peek().text === '_') {
      this.at++;
      return null;
    }
    return this.known(this.name());
  }

  private attrs(decl: AnyOpDef, op: Token): Node['attrs'] {
    const given = new Map<string, unknown>();
    if (this.peek().text === '{') {
      this.list('{', '}', () => {
        const key = this.take('word');
        const attr = decl.attrs[key.text] as { check(value: unknown): boolean; expected: string } | undefined;
        if (attr === undefined) this.fail(`"${decl.name}" has no attribute "${key.text}"`, key, suggestion(key.text, Object.keys(decl.attrs)));
        this.mark(':');
        const start = this.peek();
        const value = this.attr();
        if (!attr!.check(value)) this.fail(`attribute "${key.text}" must be ${attr!.expected}`, start);
        given.set(key.text, value);
      });
    }
    return Object.freeze(Object.fromEntries(Object.entries<{ fallback: unknown }>(decl.attrs).map(([key, { fallback }]) => {
      const value = given.has(key) ? given.get(key) : fallback;
      if (value === undefined) this.fail(`attribute "${key}" of "${decl.name}" is missing`, op);
      return [key, value];
    })));
  }

  private attr(): unknown {
    const token = this.peek();
    if (token.text === '[' && token.kind === 'mark') return Object.freeze(this.list('[', ']', () => this.item()));
    if (token.kind === 'word' && !(token.text in constants)) return this.take('word').text;
    return this.item();
  }

  /** A number, flag, string, or a size with symbols. */
  private item(): unknown {
    const token = this.peek();
    if (token.kind === 'long') return BigInt(this.take('long').text.slice(0, -1));
    if (token.kind === 'word' && token.text in constants) return constants[this.take('word').text as keyof typeof constants];
    const after = this.tokens[this.at + 1];
    const isSymbol = after.text === '*' || after.text === '+' || (after.kind === 'number' && after.text.startsWith('-'));
    return token.kind === 'string' && !isSymbol ? this.take('string').text : this.dim();
  }

  private size(): Dim {
    const place = this.peek();
    const dim = this.dim();
    return typeof dim !== 'number' || (Number.isSafeInteger(dim) && dim >= 0) ? dim : this.fail(`${dim} is no size`, place);
  }
  /** `3`, `N`, `2*N+1`, `"batch size"+2`. */
  private dim(): Dim {
    let sum = this.term();
    for (;;) {
      if (this.next('+')) sum = addDims(sum, this.term());
      else if (this.peek().kind === 'number' && this.peek().text.startsWith('-')) sum = addDims(sum, this.term());
      else return sum;
    }
  }
  private term(): Dim {
    const token = this.take('number', 'word', 'string');
    if (token.kind !== 'number') return symbol(token.text);
    const value = numberOf(token.text);
    return this.next('*') ? scaleDim(symbol(this.take('word', 'string').text), value) : value;
  }

  private site(): Site {
    if (!this.next('@')) return noSite;
    const origins = [this.take('string').text];
    while (this.next(',')) origins.push(this.take('string').text);
    return { origins, passes: [] };
  }

  private type(): TensorType {
    const token = this.take('word');
    const dtype = token.text;
    if (!isDType(dtype)) return this.fail(`"${dtype}" is no element type`, token);
    if (this.peek().text === '<' && !isInteger(dtype)) this.fail('only integers have a quantisation');
    const quant = this.next('<') ? this.quant(dtype as IntegerDType) : null;
    return tensorType(dtype, this.list('[', ']', () => this.size()), quant);
  }

  /** After `<`: `scale`, `scale, zero`, `scale, zero, low..high`, each with `axis n:` before and lists in it. */
  private quant(dtype: IntegerDType): UniformQuant {
    let axis: number | null = null;
    if (this.peek().kind === 'word' && this.peek().text === 'axis') {
      this.at++;
      axis = this.number();
      this.mark(':');
    }
    const scale = this.numbers('f32');
    let zero: number | readonly number[] = 0;
    let [low, high] = rangeOf(dtype);
    while (this.next(',')) {
      const first = this.numbers('i32');
      if (typeof first === 'number' && this.next('..')) [low, high] = [first, this.number()];
      else zero = first;
    }
    this.mark('>');
    return { kind: 'uniform', scale: typeof scale === 'number' ? Math.fround(scale) : scale.map(Math.fround), zero, axis, low, high };
  }

  /** A number, a list, or a list in the side file. */
  private numbers(dtype: 'f32' | 'i32'): number | readonly number[] {
    if (this.peek().text === '[') return this.list('[', ']', () => this.number());
    if (this.peek().text === 'file') {
      const file = this.file();
      return Array.from(this.load(file, dtype, file.length) as Float32Array);
    }
    return this.number();
  }

  private constant(name: Token): void {
    const start = this.peek();
    if (start.text === '[' && start.kind === 'mark') {
      const elements = this.list('[', ']', () => this.take('number', 'word'));
      const type = this.typeAfter();
      if (elements.length !== this.count(type, start)) this.fail(`${elements.length} elements for ${this.count(type, start)} places`, start);
      const data = allocate(type.dtype, elements.length);
      elements.forEach((element, i) => { data[i] = this.element(element, type); });
      this.defineConstant(name, type, data);
      return;
    }
    if (start.text === 'file') {
      const file = this.file();
      const type = this.typeAfter();
      this.defineConstant(name, type, this.load(file, type.dtype, this.count(type, start)));
      return;
    }
    const form = this.take('word');
    const makers: Readonly<Record<string, () => (type: TensorType) => TypedArray>> = {
      iota: () => iota,
      splat: () => {
        const [element] = this.list('(', ')', () => this.take('number', 'word'));
        return (type) => splat(type, this.element(element ?? form, type));
      },
      random: () => {
        const [seed] = this.list('(', ')', () => {
          this.word('seed');
          this.mark(':');
          return this.number();
        });
        return (type) => random(type, seed ?? 0);
      },
    };
    if (!(form.text in makers)) this.fail('a constant is a list, splat(value), iota, random(seed: n) or file("digest", offset: n)', form);
    const make = makers[form.text]();
    const type = this.typeAfter();
    this.count(type, start);
    this.defineConstant(name, type, make(type));
  }

  private typeAfter(): TensorType {
    this.mark(':');
    return this.type();
  }
  private count(type: TensorType, place: Token): number {
    if (!isStaticShape(type.shape)) return this.fail('the shape of a constant has no symbols', place);
    const count = sizeOf(type.shape);
    return count <= MAX_CONSTANT_SIZE ? count : this.fail(`a constant of ${count} elements is too large`, place);
  }
  private defineConstant(name: Token, type: TensorType, data: TypedArray): void {
    this.define(name, (own) => ({ name: own, type, def: Object.freeze<Constant>({ op: 'const', tensor: { type, data } }) }));
  }

  /** `file("digest", offset: n)`, with `length: n` where no type tells it. */
  private file(): FilePlace {
    const place = this.take('word');
    this.mark('(');
    const digest = this.take('string').text;
    const given: Record<string, number> = {};
    while (this.next(',')) {
      const key = this.take('word').text;
      this.mark(':');
      given[key] = this.number();
    }
    this.mark(')');
    return { place, digest, offset: given.offset ?? null, length: given.length ?? 0 };
  }
  private load({ place, digest, offset }: FilePlace, dtype: TensorType['dtype'], length: number): TypedArray {
    if (this.weights === null || offset === null) {
      return this.fail(`the data of "${digest}" is in a side file that was not given`, place, 'read the text together with its weights file');
    }
    return this.weights.read(digest, offset, dtype, length);
  }

  private element(token: Token, { dtype }: TensorType): number | bigint {
    if (dtype === 'i64') return /^-?\d+$/.test(token.text) ? BigInt(token.text) : this.fail('an integer was expected', token);
    const value = token.kind === 'number' ? numberOf(token.text) : numberWords.get(token.text) ?? this.fail('a number was expected', token);
    if (dtype === 'f32') return value;
    const [low, high] = rangeOf(dtype);
    return Number.isInteger(value) && value >= low && value <= high ? value : this.fail(`${token.text} is no ${dtype}`, token);
  }

  private define<T extends Value>(name: Token, make: (name: string) => T): Value {
    if (this.values.has(name.text)) this.fail(`%${name.text} is already defined`, name);
    const value = Object.freeze(make(name.text));
    this.values.set(name.text, value);
    return value;
  }
  private known(name: Token): Value {
    return this.values.get(name.text) ?? this.fail(`%${name.text} is not defined above`, name, suggestion(name.text, [...this.values.keys()]));
  }

  /** `%name` or `%"name"`. */
  private name(): Token {
    if (this.peek().kind === 'mark' && this.next('%')) return this.take('string');
    return this.take('name');
  }
  private number(): number {
    return numberOf(this.take('number').text);
  }
  private list<T>(open: string, close: string, item: () => T): T[] {
    this.mark(open);
    const items: T[] = [];
    if (this.next(close)) return items;
    do items.push(item()); while (this.next(','));
    this.mark(close);
    return items;
  }
  private peek(): Token {
    return this.tokens[this.at];
  }
  /** Takes the mark if it comes next. */
  private next(mark: string): boolean {
    const found = this.peek().kind === 'mark' && this.peek().text === mark;
    if (found) this.at++;
    return found;
  }
  private mark(mark: string): void {
    if (!this.next(mark)) this.fail(`"${mark}" was expected`);
  }
  private word(word: string): void {
    if (this.peek().kind !== 'word' || this.peek().text !== word) this.fail(`"${word}" was expected`);
    this.at++;
  }
  private take(...kinds: readonly Token['kind'][]): Token {
    const token = this.peek();
    if (!kinds.includes(token.kind)) this.fail(`${kinds.map((kind) => kindNames[kind]).join(' or ')} was expected`);
    this.at++;
    return token;
  }
  private fail(why: string, { offset }: Token = this.peek(), near: string | null = null): never {
    return failAt(this.text, offset, why, near);
  }
}

const constants = { true: true, false: false, inf: Infinity, nan: NaN } as const;
const numberWords: ReadonlyMap<string, number> = new Map([['inf', Infinity], ['nan', NaN]]);
const numberOf = (text: string): number => (text === '-inf' ? -Infinity : Number(text));
const kindNames: Readonly<Record<Token['kind'], string>> = {
  name: 'a value (%name)', word: 'a word', number: 'a number', long: 'a 64-bit integer', string: 'a string', mark: 'a mark', end: 'the end',
};

const suggestion = (name: string, known: readonly string[]): string | null => {
  const near = closest(name, known);
  return near === null ? null : `did you mean "${near}"?`;
};
