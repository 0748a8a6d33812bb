#!/usr/bin/env node
/** `lowbitc`: see `cli/program.ts`. */
import { main } from './cli/program.ts';

const exitCode = await main(process.argv.slice(2));
// stdout may be a pipe that drains slowly; leave only when all is written
process.stdout.write('', () => process.exit(exitCode));
