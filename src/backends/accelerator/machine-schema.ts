/** `docs/machine.schema.json`: the JSON schema of machine descriptions, from the rules that check them. */
import { opNames } from './isa.ts';
import { lanesRules, machineFormat, needed, numberRules } from './machine.ts';

type Json = Readonly<Record<string, unknown>>;
interface Node { properties: Record<string, Node | Json>; required: string[] }

const closed = ({ properties, required }: Node, description?: string): Json => ({
  type: 'object', ...(description === undefined ? {} : { description }), additionalProperties: false, required,
  properties: Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, 'properties' in value && 'required' in value && !('type' in value) ? closed(value as Node) : value])),
});

export const machineSchema = (): Json => {
  const root: Node = { properties: { $schema: { type: 'string' }, format: { const: machineFormat }, name: { type: 'string', minLength: 1 } }, required: ['format', 'name'] };
  for (const { path, least, most, doc } of numberRules) {
    let at = root;
    for (const key of path.slice(0, -1)) {
      if (!(key in at.properties)) {
        at.properties[key] = { properties: {}, required: [] } satisfies Node;
        at.required.push(key);
      }
      at = at.properties[key] as Node;
    }
    at.properties[path.at(-1)!] = { type: 'integer', minimum: least, maximum: most, description: doc };
    at.required.push(path.at(-1)!);
  }
  const lane: Node = { properties: Object.fromEntries(lanesRules.map(({ key, ...rule }) => [key, 'among' in rule ? { enum: rule.among } : { type: 'integer', minimum: rule.least, maximum: rule.most }])), required: lanesRules.map(({ key }) => key) };
  root.properties['lanes'] = { type: 'array', minItems: 1, items: closed(lane), description: 'products that an element of the array adds up in a cycle; widths in between use the fastest entry that holds them' };
  root.properties['ops'] = { type: 'array', items: { enum: opNames }, allOf: needed.map((op) => ({ contains: { const: op } })), description: 'the instructions that the machine has; with MMV, products that the array has no lanes for go to the vector engine' };
  root.required.push('lanes', 'ops');
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'A machine for --target accel:my.json', ...closed(root) };
};
