/** Reading of `.lbir` test cases: comment lines before the graph say what it is and give tensors as `// %name = [codes]`. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const here = dirname(fileURLToPath(import.meta.url));
export const casesIn = (folder: string): readonly string[] => readdirSync(join(here, folder)).filter((file) => file.endsWith('.lbir')).sort();
export const readCase = (folder: string, file: string): string => readFileSync(join(here, folder, file), 'utf8');

export const withoutComments = (text: string): string => text.replace(/^\/\/.*\n/gm, '');
export const tensorsOf = (text: string): ReadonlyMap<string, readonly number[]> =>
  new Map([...text.matchAll(/^\/\/ %(\S+) = (\[.*\])$/gm)].map(([, name, list]) => [name, JSON.parse(list) as number[]]));
