/** Words of the text form, with their places. */
import { CompileError } from './diagnostic.ts';
import { errors } from './errors.ts';

export interface Token {
  readonly kind: 'name' | 'word' | 'number' | 'long' | 'string' | 'mark' | 'end';
  /** names without `%`, strings without quotes */
  readonly text: string;
  readonly offset: number;
}

/** The first of these that fits is the next token. */
const pattern = new RegExp([
  /(?<name>%[A-Za-z0-9_][A-Za-z0-9_.]*)/, /(?<word>[A-Za-z_][A-Za-z0-9_.]*)/, /(?<long>-?\d+n)/, /(?<number>-?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|inf\b))/,
  /(?<string>"(?:[^"\\\n]|\\.)*")/, /(?<mark>->|\.\.|[(){}[\]<>:,=@%+*])/,
].map(({ source }) => source).join('|'), 'y');
/** Spaces, line ends and comments. */
const blank = /(?:\s+|\/\/[^\n]*)*/y;

/** Throws the error that points at a place of the text. */
export const failAt = (text: string, offset: number, why: string, help: string | null = null): never => {
  const start = text.lastIndexOf('\n', offset - 1) + 1;
  const end = text.indexOf('\n', offset);
  const line = text.slice(0, offset).split('\n').length;
  throw new CompileError(errors.badText(why, line, offset - start + 1, text.slice(start, end < 0 ? undefined : end), help));
};

export const tokenize = (text: string): readonly Token[] => {
  const tokens: Token[] = [];
  for (let at = 0; ;) {
    blank.lastIndex = at;
    blank.exec(text);
    at = blank.lastIndex;
    if (at >= text.length) break;
    pattern.lastIndex = at;
    const groups = pattern.exec(text)?.groups;
    if (groups === undefined) {
      return failAt(text, at, text[at] === '"' ? 'this string does not end on its line' : `${JSON.stringify(text[at])} has no meaning here`);
    }
    const [kind, raw] = Object.entries(groups).find(([, found]) => found !== undefined) as [Token['kind'], string];
    tokens.push({ kind, text: kind === 'name' ? raw.slice(1) : kind === 'string' ? unquote(text, raw, at) : raw, offset: at });
    at = pattern.lastIndex;
  }
  tokens.push({ kind: 'end', text: 'the end of the text', offset: text.length });
  return tokens;
};

const unquote = (text: string, raw: string, offset: number): string => {
  try {
    return JSON.parse(raw) as string;
  } catch {
    return failAt(text, offset, 'this string has an escape that JSON does not know');
  }
};
