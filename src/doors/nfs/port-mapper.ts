/** The port mapper: version 2 (RFC 1833, 3), and of rpcbind versions 3 and 4 (RFC 1833, 2) what clients ask: GETADDR and DUMP. Nobody registers anything here, and no call is passed on (CALLIT turns a server into an amplifier). */
import type { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import { maxAuthBytes } from "./limits.ts";
import { nullProcedure, type Procedure, type Program } from "./program.ts";

export const portMapperProgram = 100000;
export const portMapperPort = 111;

export const protocolNumbers = { tcp: 6, udp: 17 } as const;

export interface Registration {
	readonly program: number;
	readonly version: number;
	readonly transport: "tcp" | "udp";
	readonly port: number;
}

export function registrationsOf(programs: readonly Program[], port: number): readonly Registration[] {
	return programs.flatMap(({ number, versions, transports }) =>
		[...versions.keys()].flatMap((version) => transports.map((transport) => ({ program: number, version, transport, port }))),
	);
}

/** RFC 5665: an IPv4 address and port. */
export function universalAddress(address: string, port: number): string {
	return `${address}.${port >> 8}.${port & 255}`;
}

/** RFC 5665: the last two numbers of a universal address; 0 for none. */
export function portOfUniversal(address: string): number {
	const [, high, low] = /\.(\d{1,3})\.(\d{1,3})$/.exec(address) ?? [];
	return high === undefined || low === undefined ? 0 : Number(high) * 256 + Number(low);
}

export function createPortMapper(registrations: () => readonly Registration[]): Program {
	const find = (program: number, version: number, protocol: number | string): number => {
		const ofProgram = registrations().filter((one) => one.program === program);
		const matching = ofProgram.filter((one) => protocol === protocolNumbers[one.transport] || protocol === one.transport);
		// Another version is better than none: the server then says which it has.
		return (matching.find((one) => one.version === version) ?? matching[0])?.port ?? 0;
	};
	const version2: readonly (Procedure | undefined)[] = [
		nullProcedure,
		undefined,
		undefined,
		{
			name: "GETPORT",
			run: async (reader, writer) => {
				const [program, version, protocol] = [reader.u32(), reader.u32(), reader.u32()];
				reader.u32();
				reader.end();
				writer.u32(find(program, version, protocol));
				return undefined;
			},
		},
		{ name: "DUMP", run: async (reader, writer) => dumpPorts(registrations(), reader, writer) },
	];
	const later: readonly (Procedure | undefined)[] = [
		nullProcedure,
		undefined,
		undefined,
		{ name: "GETADDR", run: async (reader, writer) => getAddress(find, reader, writer) },
		{ name: "DUMP", run: async (reader, writer) => dumpAddresses(registrations(), reader, writer) },
	];
	const versions = new Map([
		[2, version2],
		[3, later],
		[4, later],
	]);
	return { number: portMapperProgram, transports: ["tcp", "udp"], versions };
}

function dumpPorts(registrations: readonly Registration[], reader: XdrReader, writer: XdrWriter): undefined {
	reader.end();
	for (const { program, version, transport, port } of registrations)
		writer.bool(true).u32(program).u32(version).u32(protocolNumbers[transport]).u32(port);
	writer.bool(false);
	return undefined;
}

type Find = (program: number, version: number, protocol: number | string) => number;

function getAddress(find: Find, reader: XdrReader, writer: XdrWriter): undefined {
	const [program, version] = [reader.u32(), reader.u32()];
	const netid = reader.text(maxAuthBytes);
	reader.text(maxAuthBytes);
	reader.text(maxAuthBytes);
	reader.end();
	const port = find(program, version, netid.replace(/6$/, ""));
	// The caller knows this machine by an address that works; the one here only has to be of the right kind.
	writer.text(port === 0 ? "" : universalAddress(netid.endsWith("6") ? "::" : "0.0.0.0", port));
	return undefined;
}

function dumpAddresses(registrations: readonly Registration[], reader: XdrReader, writer: XdrWriter): undefined {
	reader.end();
	for (const { program, version, transport, port } of registrations)
		writer.bool(true).u32(program).u32(version).text(transport).text(universalAddress("0.0.0.0", port)).text("superuser");
	writer.bool(false);
	return undefined;
}
