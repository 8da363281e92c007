/** `node rpcbind-program.js PORT register|unregister|crash [serve]`: registers the programs of an NFS server with the rpcbind of this machine (its namespace), and tells what became of it. With `serve` they answer there. `crash` leaves them registered. */
import { silentLogger } from "../../src/base/telemetry.ts";
import type { Registration } from "../../src/doors/nfs/port-mapper.ts";
import { nullProcedure } from "../../src/doors/nfs/program.ts";
import { RpcClient } from "../../src/doors/nfs/rpc-client.ts";
import { RpcServer } from "../../src/doors/nfs/rpc-server.ts";
import { type FamilyRegistration, overFamilies, register, unregister } from "../../src/doors/nfs/rpcbind.ts";
import { createRealPlatform } from "../../src/platform/real/platform.ts";

const [port = "", what, serve] = process.argv.slice(2);
const platform = createRealPlatform();
const { clock, network, sockets } = platform;
const both = ["tcp", "udp"] as const;
const programs = [
	{ number: 100021, versions: [1, 3, 4] },
	{ number: 100024, versions: [1] },
];
const ofPrograms: Registration[] = programs.flatMap(({ number, versions }) =>
	versions.flatMap((version) => both.map((transport) => ({ program: number, version, transport, port: Number(port) }))),
);
const registrations = overFamilies(ofPrograms, ["ipv4", "ipv6"]);
const server = new RpcServer(
	programs.map(({ number, versions }) => ({
		number,
		transports: both,
		versions: new Map(versions.map((version) => [version, [nullProcedure]])),
	})),
	{ platform, logger: silentLogger },
);
if (serve === "serve") {
	await server.listenTcp("::", Number(port));
	await server.listenUdp("::", Number(port));
}
const caller = new RpcClient({ network, clock }, 1);
if (what === "unregister") await unregister(registrations, sockets);
else {
	const answers = ({ port: at, family, ...program }: FamilyRegistration): Promise<boolean> =>
		caller.answers({ address: family === "ipv6" ? "::1" : "127.0.0.1", port: at }, program, 2000);
	const { registered, taken } = await register(registrations, { sockets, answers });
	console.log(`${registered.length} registered, ${taken.length} taken`);
	// Until somebody says that it is enough, or kills it.
	if (serve === "serve") for await (const _chunk of process.stdin);
}
await server.stop();
process.exit(0);
