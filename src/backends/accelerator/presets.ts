/** Three machines: a corner of an FPGA, a small NPU, a large one. */
import { opNames } from './isa.ts';
import type { Lanes, Machine } from './machine.ts';

const KIB = 1024;
/** Bit-parallel multipliers that split: half the width, twice the products, for weights and activations each; 16 bits cost twice in each. */
const fused = (bytes: number): readonly Lanes[] => [
  { weightBits: 2, activationBits: 4, perCycle: bytes * 8 }, { weightBits: 4, activationBits: 4, perCycle: bytes * 4 },
  { weightBits: 2, activationBits: 8, perCycle: bytes * 4 }, { weightBits: 4, activationBits: 8, perCycle: bytes * 2 },
  { weightBits: 8, activationBits: 8, perCycle: bytes }, { weightBits: 8, activationBits: 16, perCycle: Math.max(1, bytes / 2) },
  { weightBits: 16, activationBits: 16, perCycle: Math.max(1, bytes / 4) },
];
const preset = (name: string, rows: number, columns: number, bytes: number, kib: readonly [number, number, number, number], dma: Machine['dma'], vectorLanes: number, clockMHz: number): Machine => ({
  format: 'lowbitc-machine-1', name, clockMHz, array: { rows, columns, fill: 2 }, lanes: fused(bytes),
  memories: { ABUF: kib[0] * KIB, WBUF: kib[1] * KIB, PBUF: kib[2] * KIB, OBUF: kib[3] * KIB },
  dma, vector: { lanes: vectorLanes, start: 4 }, multiplierBits: 31, ops: opNames,
});

export const presets: readonly Machine[] = [
  preset('tiny', 4, 4, 4, [32, 32, 16, 16], { bytesPerCycle: 4, latency: 16 }, 4, 100),
  preset('mid', 8, 16, 8, [128, 128, 32, 64], { bytesPerCycle: 16, latency: 32 }, 16, 400),
  preset('large', 16, 32, 16, [512, 512, 64, 256], { bytesPerCycle: 64, latency: 64 }, 64, 800),
];
