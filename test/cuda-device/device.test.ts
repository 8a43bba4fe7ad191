/**
 * The simulated device itself: that it refuses what a device refuses, and finds what it is there to
 * find.
 */
import koffi from "koffi";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { narrowBf16, narrowF16 } from "../../src/model/dtypes.ts";
import { CAPTURE_INVALIDATED, CAPTURE_UNSUPPORTED, NOT_READY } from "./errors.ts";
import { hasProvider, SimulatedCuda } from "./simulated-cuda.ts";

const DEVICE_TO_HOST = 2;
const HOST_TO_DEVICE = 1;
const THREAD_LOCAL = 1;
const NUM_BYTES = 64;

describe.runIf(hasProvider)("the simulated device", () => {
  let cuda: SimulatedCuda;
  let call: (name: string, ...args: (bigint | number | ArrayBufferView)[]) => number;
  beforeAll(async () => {
    cuda = await SimulatedCuda.load();
    call = (name, ...args) => {
      const types = args.map((arg) => (typeof arg === "number" ? "size_t" : "void *"));
      return cuda.runtime.func(name, "int", types)(...args);
    };
  }, 240_000);
  beforeEach(() => cuda.reset());

  const out = (name: string, ...args: (bigint | number)[]): bigint => {
    const result = new BigUint64Array(1);
    expect(call(name, result, ...args)).toBe(0);
    return result[0]!;
  };
  const captured = (stream: bigint): bigint => {
    const graph = new BigUint64Array(1);
    expect(call("cudaStreamEndCapture", stream, graph)).toBe(0);
    return graph[0]!;
  };
  const filled = (value: number) => new Uint8Array(new ArrayBuffer(NUM_BYTES)).fill(value);

  it("does what waits in a stream when something waits for it, and not before", () => {
    const stream = out("cudaStreamCreateWithFlags", 1);
    const data = out("cudaMalloc", NUM_BYTES);
    const pinned = out("cudaHostAlloc", NUM_BYTES, 0);
    const view = new Uint8Array(koffi.view(pinned, NUM_BYTES));
    view.fill(0);
    call("cudaMemcpyAsync", data, filled(7), NUM_BYTES, HOST_TO_DEVICE, stream);
    call("cudaMemcpyAsync", pinned, data, NUM_BYTES, DEVICE_TO_HOST, stream);
    expect(view[0]).toBe(0);
    expect(call("cudaStreamSynchronize", stream)).toBe(0);
    expect(view[0]).toBe(7);
    expect(cuda.book().copiedBytes).toEqual({ "pageable to device": NUM_BYTES, "device to pinned": NUM_BYTES });
    for (const [name, address] of [
      ["cudaFree", data],
      ["cudaFreeHost", pinned],
      ["cudaStreamDestroy", stream],
    ] as const) {
      expect(call(name, address)).toBe(0);
    }
  });

  it("records what is launched in a capture, and does it again at each replay", () => {
    const stream = out("cudaStreamCreateWithFlags", 1);
    const [from, to] = [out("cudaMalloc", NUM_BYTES), out("cudaMalloc", NUM_BYTES)];
    expect(call("cudaStreamBeginCapture", stream, THREAD_LOCAL)).toBe(0);
    expect(call("cudaMemcpyAsync", to, from, NUM_BYTES, 3, stream)).toBe(0);
    const graph = captured(stream);
    const exec = out("cudaGraphInstantiate", graph, 0);
    for (const value of [3, 9]) {
      const result = filled(0);
      call("cudaMemcpyAsync", from, filled(value), NUM_BYTES, HOST_TO_DEVICE, stream);
      call("cudaGraphLaunch", exec, stream);
      call("cudaMemcpyAsync", result, to, NUM_BYTES, DEVICE_TO_HOST, stream);
      call("cudaStreamSynchronize", stream);
      expect(result).toEqual(filled(value));
    }
    expect(cuda.book()).toMatchObject({ captures: 1, replays: 2, copies: { "device to device": 2 }, illegal: [] });
    call("cudaGraphExecDestroy", exec);
    call("cudaGraphDestroy", graph);
    for (const [name, address] of [
      ["cudaFree", from],
      ["cudaFree", to],
      ["cudaStreamDestroy", stream],
    ] as const) {
      call(name, address);
    }
  });

  it.each([
    ["cudaMalloc", (_: bigint) => [new BigUint64Array(1), NUM_BYTES]],
    ["cudaHostAlloc", (_: bigint) => [new BigUint64Array(1), NUM_BYTES, 0]],
    ["cudaFree", (_: bigint, data: bigint) => [data]],
    ["cudaStreamSynchronize", (stream: bigint) => [stream]],
    ["cudaDeviceSynchronize", (_: bigint) => []],
    ["cudaMemcpy", (_: bigint, data: bigint) => [data, filled(1), NUM_BYTES, HOST_TO_DEVICE]],
    ["cudaMemcpyAsync", (stream: bigint, data: bigint) => [data, filled(1), NUM_BYTES, HOST_TO_DEVICE, stream]],
  ] as const)("refuses %s while capturing, and the capture is spoilt", (name, args) => {
    const stream = out("cudaStreamCreateWithFlags", 1);
    const data = out("cudaMalloc", NUM_BYTES);
    call("cudaStreamBeginCapture", stream, THREAD_LOCAL);
    expect(call(name, ...args(stream, data))).toBeGreaterThanOrEqual(CAPTURE_UNSUPPORTED);
    expect(call("cudaStreamEndCapture", stream, new BigUint64Array(1))).toBe(CAPTURE_INVALIDATED);
    expect(cuda.book().illegal).toEqual([expect.stringContaining(name)]);
    call("cudaFree", data);
    call("cudaStreamDestroy", stream);
  });

  it("finds a write past the end, a copy past the end, and memory that is freed twice", () => {
    const data = out("cudaMalloc", NUM_BYTES - 3);
    new Uint8Array(koffi.view(data, NUM_BYTES))[NUM_BYTES - 3] = 1;
    expect(cuda.book().illegal).toEqual([`write outside of a block of ${NUM_BYTES - 3} bytes`]);
    expect(call("cudaMemcpy", data, filled(1), NUM_BYTES, HOST_TO_DEVICE)).not.toBe(0);
    const { numBlocks } = cuda.book();
    call("cudaFree", data);
    expect(call("cudaFree", data)).not.toBe(0);
    expect(cuda.book().illegal).toContain(`cudaMemcpy of ${NUM_BYTES} bytes reaches past the end of a block`);
    expect(cuda.book().illegal).toContain("cudaFree of what is not allocated");
    expect(cuda.book().numBlocks).toBe(numBlocks - 1);
  });

  it("gives memory that is not zeros, and finds a write to memory that has been freed", () => {
    for (const [take, free] of [
      ["cudaMalloc", "cudaFree"],
      ["cudaHostAlloc", "cudaFreeHost"],
    ] as const) {
      const data = out(take, NUM_BYTES, ...(take === "cudaHostAlloc" ? [0] : []));
      const view = new Uint8Array(koffi.view(data, NUM_BYTES));
      expect(view).not.toContain(0);
      call(free, data);
      expect(cuda.book().illegal).toEqual([]);
      const before = view[5]!;
      view[5] = 1;
      expect(cuda.book().illegal).toEqual([`write to a block of ${NUM_BYTES} bytes that has been freed`]);
      view[5] = before;
      cuda.reset();
    }
  });

  it("finds what a replay copies out of memory that has been freed meanwhile", () => {
    const stream = out("cudaStreamCreateWithFlags", 1);
    const [from, to] = [out("cudaMalloc", NUM_BYTES), out("cudaMalloc", NUM_BYTES)];
    call("cudaStreamBeginCapture", stream, THREAD_LOCAL);
    call("cudaMemcpyAsync", to, from, NUM_BYTES, 3, stream);
    const graph = captured(stream);
    const exec = out("cudaGraphInstantiate", graph, 0);
    call("cudaFree", from);
    call("cudaGraphLaunch", exec, stream);
    call("cudaStreamSynchronize", stream);
    expect(cuda.book().illegal).toEqual(["cudaMemcpyAsync of memory that has been freed"]);
    call("cudaGraphExecDestroy", exec);
    call("cudaGraphDestroy", graph);
    call("cudaFree", to);
    call("cudaStreamDestroy", stream);
  });

  it("knows which streams, events and graphs there are, and refuses others", () => {
    const { handles: before } = cuda.book();
    const count = (kind: string) => (cuda.book().handles[kind] ?? 0) - (before[kind] ?? 0);
    const [stream, event] = [out("cudaStreamCreateWithFlags", 1), out("cudaEventCreateWithFlags", 0)];
    call("cudaStreamBeginCapture", stream, THREAD_LOCAL);
    const graph = captured(stream);
    const exec = out("cudaGraphInstantiate", graph, 0);
    const made = [
      ["stream", "cudaStreamDestroy", stream],
      ["event", "cudaEventDestroy", event],
      ["graph", "cudaGraphDestroy", graph],
      ["executable graph", "cudaGraphExecDestroy", exec],
    ] as const;
    for (const [kind, destroy, handle] of made) {
      expect(count(kind)).toBe(1);
      expect(call(destroy, handle)).toBe(0);
      expect(count(kind)).toBe(0);
      expect(call(destroy, handle)).not.toBe(0);
    }
    expect(cuda.book().illegal).toEqual(made.map(([kind, destroy]) => `${destroy} of what is no ${kind}`));
  });

  it("has two runtimes in a process, each with a last error of its own, on the same streams and memory", () => {
    const useRuntime = cuda.runtime.func("simulated_cuda_use_runtime", "int", ["int"]);
    const stream = out("cudaStreamCreateWithFlags", 1);
    call("cudaGetLastError"); // of tests before
    useRuntime(1);
    try {
      expect(call("cudaStreamSynchronize", stream)).toBe(0);
      expect(call("cudaFree", 16n)).not.toBe(0);
      useRuntime(0);
      expect(call("cudaGetLastError")).toBe(0);
      useRuntime(1);
      expect(call("cudaGetLastError")).not.toBe(0);
    } finally {
      useRuntime(0);
    }
    call("cudaStreamDestroy", stream);
  });

  it("finds a stream's work unfinished when it is asked, then done", () => {
    const stream = out("cudaStreamCreateWithFlags", 1);
    const data = out("cudaMalloc", NUM_BYTES);
    expect(call("cudaStreamQuery", stream)).toBe(0);
    call("cudaMemsetAsync", data, 5, NUM_BYTES, stream);
    const view = new Uint8Array(koffi.view(data, NUM_BYTES));
    expect(view).not.toContain(5);
    expect(call("cudaStreamQuery", stream)).toBe(NOT_READY);
    expect(call("cudaStreamQuery", stream)).toBe(0);
    expect([...new Set(view)]).toEqual([5]);
    expect(cuda.book().synchronisations).toBe(1);
    call("cudaFree", data);
    call("cudaStreamDestroy", stream);
  });

  it.each([
    { name: "f32", type: 0, narrow: (x: Float32Array) => x },
    { name: "f16", type: 2, narrow: narrowF16 },
    { name: "bf16", type: 14, narrow: narrowBf16 },
  ])("multiplies matrices of $name, turned or not, when their stream comes to it", ({ type, narrow }) => {
    const blas = (name: string, ...args: (bigint | number | ArrayBufferView)[]) => {
      const types = args.map((arg) => (typeof arg === "number" ? "int" : "void *"));
      expect(cuda.blas.func(name, "int", types)(...args)).toBe(0);
    };
    const stream = out("cudaStreamCreateWithFlags", 1);
    const handle = new BigUint64Array(1);
    blas("cublasCreate_v2", handle);
    blas("cublasSetStream_v2", handle[0]!, stream);
    const onDevice = (values: readonly number[]) => {
      const numbers = narrow(Float32Array.from(values));
      const address = out("cudaMalloc", numbers.byteLength);
      const view = new Uint8Array(koffi.view(address, numbers.byteLength));
      view.set(new Uint8Array(numbers.buffer));
      return {
        address,
        view,
        bytes: (expected: readonly number[]) => new Uint8Array(narrow(Float32Array.from(expected)).buffer),
      };
    };
    // By columns: a is 2 × 3, turned it is 3 × 2.
    const [a, aTurned] = [onDevice([1, 4, 2, 5, 3, 6]), onDevice([1, 2, 3, 4, 5, 6])];
    const [b, c] = [onDevice([1, 0, -1, 0.5, 2, 1]), onDevice([10, 20, 30, 40])];
    const [one, two] = [Float32Array.of(1), Float32Array.of(2)];
    const multiply = (turned: number, x: bigint, leading: number, beta: Float32Array) =>
      blas(
        "cublasGemmEx",
        handle[0]!,
        turned,
        0,
        2,
        2,
        3,
        one,
        x,
        type,
        leading,
        b.address,
        type,
        3,
        beta,
        c.address,
        type,
        2,
        68,
        -1,
      );
    multiply(0, a.address, 2, two);
    expect(c.view).toEqual(c.bytes([10, 20, 30, 40]));
    call("cudaStreamSynchronize", stream);
    expect(c.view).toEqual(c.bytes([18, 38, 67.5, 98]));
    multiply(1, aTurned.address, 3, Float32Array.of(0));
    call("cudaStreamSynchronize", stream);
    expect(c.view).toEqual(c.bytes([-2, -2, 7.5, 18]));
    blas("cublasDestroy_v2", handle[0]!);
    for (const { address } of [a, aTurned, b, c]) call("cudaFree", address);
    call("cudaStreamDestroy", stream);
  });

  it("names a function that it lacks", () => {
    expect(call("cudaLibraryUnload", 0n)).not.toBe(0);
    expect(cuda.book().unsupported).toEqual(["cudaLibraryUnload"]);
  });
});
