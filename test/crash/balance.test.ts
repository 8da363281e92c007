import { test } from "node:test";
import { deathDuringBalance, heldUp, unequalDisks } from "./balance.ts";

test("disks of different sizes are made equally free beside others' work, and stay so", async () => {
	await unequalDisks(1300);
});

test("a balance goes on by itself after kills and power cuts in the middle", async () => {
	await deathDuringBalance(1310, "kill", 2);
	await deathDuringBalance(1311, "cut", 2);
});

test("a balance waits for the healer, and can be called off", async () => {
	await heldUp(1320);
});
