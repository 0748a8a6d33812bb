/** `lowbitc verify`: every target against the reference bit for bit, and the certificate against the files. */
import type { Command } from 'commander';
import { join, resolve } from 'node:path';
import { firstDifferingLayer } from '../backends/accelerator/compare-golden.ts';
import { scanObjects } from '../backends/certificate.ts';
import { certify, sameCertificate, type Certificate } from '../artefact/certificate.ts';
import { firstDifferingNode } from '../artefact/first-difference.ts';
import { loadFolder, readListed, takesData, targetFolder, type Folder } from '../artefact/load.ts';
import { openRunners, referenceRunner } from '../artefact/runners.ts';
import { verifyTargets, type TargetVerdict } from '../artefact/verification.ts';
import { codesAt, openSamples, syntheticSamples, type Samples } from '../calibration/samples.ts';
import { toolboxWith } from '../compile.ts';
import { CompileError, exitCodes } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { collect, commaList, enforceDenied, newCommand, perform, withCommonOptions, type CommonOptions, type Outcome } from './command.ts';
import { wholeNumber } from './options.ts';
import { chosenTargets, samplePaths } from './sample-options.ts';
import { table, type Cell, type Terminal } from './terminal.ts';

interface VerifyFlags extends CommonOptions {
  readonly target?: readonly string[];
  readonly input?: readonly string[];
  readonly count?: string;
}

/** Samples that are compared unless --count says otherwise. */
const defaultCount = '64';

export const verifyCommand = (finish: (exitCode: number) => void): Command => withCommonOptions(newCommand('verify', 'compare all targets with the reference, bit for bit, and check the certificate')
  .argument('<dir>', 'output folder of compile')
  .option('--input <name=file>', '.npy with the samples of an input; repeatable (default: the calibration samples)', collect)
  .option('-t, --target <names>', 'only these targets; repeatable or a comma list', commaList)
  .option('--count <n>', 'at most this many samples', defaultCount))
  .addHelpText('after', `
Exit code 3 if a target differs or the certificate does not hold.

Examples:
  lowbitc verify out/model
  lowbitc verify out/model --input image=test.npy --count 1000 --target wasm`)
  .action(async (path: string, flags: VerifyFlags) => finish(await perform(flags, (terminal) => verifyFolder(path, flags, terminal))));

const verifyFolder = async (path: string, flags: VerifyFlags, terminal: Terminal): Promise<Outcome> => {
  const folder = loadFolder(path);
  const targets = chosenTargets(flags.target, folder, []);
  const samples = samplesFor(folder, flags);
  const { inputs } = folder.graph;
  const codesOf = (index: number) => codesAt(samples, index, inputs, takesData(folder));
  const { runners, skipped } = await openRunners(folder, targets, flags.target !== undefined);
  const verdicts = await verifyTargets(referenceRunner(folder.graph), runners, samples.count, codesOf, (done, total) => terminal.progress('verify', done, total));
    const nodes = new Map<string, string | null>();
    for (const { target, first } of verdicts) {
      if (first !== null) nodes.set(target, differingLayer(folder, target) ?? await firstDifferingNode(folder.graph, toolboxWith([]).backends.get(target)!, codesOf(first.sample)));
    }
    const certificate = await checkCertificate(folder);
    const machineCode = checkMachineCode(folder);
    const sound = certificate.holds && machineCode?.integerOnly !== false && verdicts.every(({ mismatches }) => mismatches === 0);
    return {
      text: textOf(verdicts, nodes, certificate, machineCode, sound, terminal),
      document: {
        samples: samples.count,
        targets: Object.fromEntries(verdicts.map(({ target, first, ...rest }) => [target, { ...rest, first: first === null ? null : { ...first, node: nodes.get(target) ?? null } }])),
        certificate, machineCode, passed: sound,
      },
      diagnostics: enforceDenied(skipped, flags.deny), exitCode: sound ? 0 : exitCodes.mismatch,
    };
};

/** The layer of the accelerator's program from which on it differs from the golden vectors beside it, where it does so on them. */
const differingLayer = (folder: Folder, target: string): string | null => (target === 'accel' ? firstDifferingLayer(targetFolder(folder, target))?.layer ?? null : null);

/** The given data, or the calibration samples where they still lie. */
const samplesFor = ({ path, manifest, graph }: Folder, { input, count }: VerifyFlags): Samples => {
  const most = wholeNumber('--count', count ?? defaultCount, 1);
  if (input !== undefined) return openSamples(samplePaths(input, graph.inputs.map(({ name }) => name)), graph.inputs, { count: most });
  const { calibration } = manifest;
  if (calibration?.synthetic) return syntheticSamples(graph.inputs, Math.min(most, calibration.samples), 0);
  if (calibration?.path == null) throw new CompileError(errors.badCommandLine('this folder names no calibration data', 'give data with --input'), 'usage');
  return openSamples(resolve(path, calibration.path), graph.inputs, { count: Math.min(most, calibration.samples) });
};

interface CertificateVerdict {
  readonly holds: boolean;
  readonly integerOnly: boolean;
  /** what the files say anew; null where nothing differs from the certificate of the folder */
  readonly found: Certificate | null;
}

const checkCertificate = async (folder: Folder): Promise<CertificateVerdict> => {
  const stored = JSON.parse(new TextDecoder().decode(readListed(folder.path, folder.manifest, 'certificate.json'))) as Certificate;
  const found = certify(folder.graph, folder.manifest.files.map(({ path }) => ({ path, bytes: readListed(folder.path, folder.manifest, path) })));
  const same = sameCertificate(stored, found);
  return { holds: same && found.integerOnly, integerOnly: found.integerOnly, found: same ? null : found };
};

/** What a compiler of this machine makes of the C. It depends on the machine, so it stands here and not in the certificate. */
interface MachineCodeVerdict {
  /** null where this machine cannot tell */
  readonly integerOnly: boolean | null;
  /** instructions read, or why none were */
  readonly finding: string;
  /** mnemonics and symbols that should not be there */
  readonly faults: readonly string[];
}

const checkMachineCode = ({ path, manifest }: Folder): MachineCodeVerdict | null => {
  if (!manifest.targets.some(({ name }) => name === 'cpu')) return null;
  const scans = scanObjects(join(path, 'cpu'));
  if (typeof scans === 'string') return { integerOnly: null, finding: scans, faults: [] };
  const faults = [...new Set(scans.flatMap(({ float, division, foreign }) => [...Object.keys(float), ...Object.keys(division), ...foreign]))];
  const instructions = scans.reduce((sum, scan) => sum + scan.instructions, 0);
  return { integerOnly: faults.length === 0, finding: `${instructions.toLocaleString('en')} ${scans[0]?.architecture ?? ''} instructions`, faults };
};

const machineCodeRow = ({ integerOnly, finding, faults }: MachineCodeVerdict, terminal: Terminal): Cell[] => ['machine code', '',
  integerOnly === null ? `not scanned: ${finding}` : integerOnly ? `holds: ${finding}, no float, no division` : terminal.style('red', `not integer-only: ${faults.join(', ')}`)];

const textOf = (verdicts: readonly TargetVerdict[], nodes: ReadonlyMap<string, string | null>, certificate: CertificateVerdict, machineCode: MachineCodeVerdict | null, sound: boolean, terminal: Terminal): string => {
  const rows = verdicts.map(({ target, samples, mismatches, first }): Cell[] => [
    target, `${samples} samples`, mismatches === 0 ? 'equal to the reference' : terminal.style('red', `${mismatches} differ`),
    first === null ? '' : `first: sample ${first.sample}, ${first.output}[${first.element}] is ${first.found}, not ${first.expected}${nodes.get(target) == null ? '' : `; from %${nodes.get(target)} on`}`,
  ]);
  return [
    table([...rows, ['certificate', '', certificate.holds ? 'holds: integers only, no division' : terminal.style('red', certificate.integerOnly ? 'is not that of these files' : 'the files are not integer-only')], ...(machineCode === null ? [] : [machineCodeRow(machineCode, terminal)])], ''),
    sound ? terminal.style('green', 'PASSED') : terminal.style('red', 'FAILED'),
  ].join('\n');
};
