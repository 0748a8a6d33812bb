import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CompileError } from '../../src/ir/diagnostic.ts';
import { Builder } from '../../src/ir/build.ts';
import { relu } from '../../src/ir/ops/index.ts';
import { int } from '../../src/ir/op.ts';
import { f32 } from '../../src/ir/type.ts';
import { bareContext, definePass } from '../../src/passes/pass.ts';
import { parsePipeline, printPipeline, resolvePipeline, runPipeline } from '../../src/passes/pipeline.ts';
import { placePasses, withoutPasses } from '../../src/passes/presets.ts';

const same = definePass<'float', 'float', { readonly times: number }>({
  name: 'stay', from: 'float', to: 'float', summary: 'nothing', options: { times: int('how often', 2) }, run: (graph) => graph,
});
const passes = new Map([['stay', same]]);
const code = (act: () => unknown): string => {
  try { act(); } catch (cause) { return (cause as CompileError).diagnostics[0].code; }
  return 'no error';
};
const smallGraph = () => {
  const b = new Builder();
  const x = b.input('x', f32(2));
  return b.finish('float', 'g', [{ name: 'y', value: b.emit(relu, { x }) }]);
};

describe('pipeline text', () => {
  it('reads names, options, words, strings and lists', () => {
    expect(parsePipeline('fold-batch-norm, quantize-weights{bits: 4, norm: max}, p.q{list: [1, -2.5], text: "a, b", on: true}')).toEqual([
      { pass: 'fold-batch-norm', options: {} },
      { pass: 'quantize-weights', options: { bits: 4, norm: 'max' } },
      { pass: 'p.q', options: { list: [1, -2.5], text: 'a, b', on: true } },
    ]);
  });

  it('prints what it reads', () => {
    const option = fc.oneof(fc.integer(), fc.boolean(), fc.stringMatching(/^[a-z ,:{}"-]{0,12}$/), fc.array(fc.integer(), { maxLength: 3 }));
    const step = fc.record({ pass: fc.stringMatching(/^[a-z][a-z-]{0,8}$/), options: fc.dictionary(fc.stringMatching(/^[a-z]+$/), option, { maxKeys: 3 }) });
    fc.assert(fc.property(fc.array(step, { maxLength: 4 }), (pipeline) => {
      expect(parsePipeline(printPipeline(pipeline)).map(({ pass, options }) => ({ pass, options: { ...options } })))
        .toEqual(pipeline.map(({ pass, options }) => ({ pass, options: { ...options } })));
    }));
  });

  it('reads JSON too', () => {
    expect(parsePipeline('[{"pass": "a", "options": {"n": 1}}, "b"]')).toEqual([{ pass: 'a', options: { n: 1 } }, { pass: 'b', options: {} }]);
  });

  it.each(['a{', 'a{b}', 'a{b: }', 'a b', ',a', '[1]', '[{"pass": 3}]', 'a{b: [1, }', 'a{b: "x}'])('refuses %s', (text) => {
    expect(code(() => parsePipeline(text))).toBe('LB0704');
  });
});

describe('resolving', () => {
  it('fills in defaults', () => {
    expect(resolvePipeline([{ pass: 'stay', options: {} }], passes)[0].options).toEqual({ times: 2 });
  });
  it('names the nearest pass for a misspelt one', () => {
    expect(() => resolvePipeline([{ pass: 'stey', options: {} }], passes)).toThrow('did you mean "stay"?');
  });
  it('refuses unknown and ill-typed options, and a wrong stage', () => {
    expect(code(() => resolvePipeline([{ pass: 'stay', options: { time: 1 } }], passes))).toBe('LB0703');
    expect(code(() => resolvePipeline([{ pass: 'stay', options: { times: 'x' } }], passes))).toBe('LB0703');
    expect(code(() => resolvePipeline([{ pass: 'stay', options: {} }], passes, 'kernel'))).toBe('LB0702');
  });
});

describe('running', () => {
  it('hands the graph before the failing pass and the rest of the pipeline to observers, and says where it failed', async () => {
    const failing = definePass<'float', 'float'>({
      name: 'fails', from: 'float', to: 'float', summary: '', options: {},
      run: () => { throw new CompileError({ code: 'LB0999', severity: 'error', message: 'no', at: null, within: null, help: null }); },
    });
    const graph = smallGraph();
    const steps = resolvePipeline([{ pass: 'stay', options: {} }, { pass: 'fails', options: {} }, { pass: 'stay', options: {} }], new Map([...passes, ['fails', failing as never]]));
    const seen: unknown[] = [];
    const run = runPipeline(graph, steps, bareContext(), [{ onFailure: (_, index, before, rest) => seen.push(index, before === graph, rest.map(({ pass }) => pass)) }]);
    await expect(run).rejects.toThrow('in  fails, step 2 of 3');
    expect(seen).toEqual([1, true, ['fails', 'stay']]);
  });
});

describe('placing', () => {
  const list = [{ pass: 'a', options: {} }, { pass: 'b', options: {} }];
  it('puts a plugin pass before or after the one it names', () => {
    expect(placePasses(list, [{ name: 'x', before: 'b' }, { name: 'y', after: 'b' }, { name: 'z' }]).map(({ pass }) => pass)).toEqual(['a', 'x', 'b', 'y']);
  });
  it('says when the place is missing', () => expect(code(() => placePasses(list, [{ name: 'x', before: 'c' }]))).toBe('LB0706'));
  it('leaves out disabled passes, and refuses to ignore an unknown one', () => {
    expect(withoutPasses(list, ['a']).map(({ pass }) => pass)).toEqual(['b']);
    expect(code(() => withoutPasses(list, ['c']))).toBe('LB0707');
  });
});
