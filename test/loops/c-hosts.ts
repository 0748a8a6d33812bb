/** Emulated machines for C: 64-bit Arm under Linux, and a Cortex-M4 board without a system. */
import { has, native, type Host } from './c-run.ts';

export const aarch64: Host = { compiler: 'aarch64-linux-gnu-gcc', flags: ['-static'], start: '', command: ['qemu-aarch64', '-cpu', 'max', './p'] };

/** Vectors at 0, code after them, data from 0x20000000; files and the exit code go through semihosting. */
export const cortexM4: Host = {
  compiler: 'arm-none-eabi-gcc',
  flags: ['-mcpu=cortex-m4', '-mthumb', '--specs=rdimon.specs', '-nostartfiles', '-Wl,--section-start=.vectors=0', '-Wl,-Ttext=0x400', '-Wl,-Tdata=0x20000000'],
  start: `
#include <stdlib.h>
int main(void);
void initialise_monitor_handles(void);
void _init(void);
void _fini(void);
void _init(void) {}
void _fini(void) {}
static void start(void) { initialise_monitor_handles(); exit(main()); }
__attribute__((section(".vectors"), used)) static void (*const vectors[2])(void) = { (void (*)(void))0x20400000, start };
`,
  command: ['qemu-system-arm', '-M', 'mps2-an386', '-nographic', '-monitor', 'none', '-serial', 'none', '-semihosting-config', 'enable=on,target=native', '-kernel', 'p'],
};

/** What a host lacks here, or null. */
export const missing = (host: Host): string | null => [host.compiler, ...(host === native ? [] : [host.command[0]])].find((command) => !has(command)) ?? null;
