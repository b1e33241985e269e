"""Loads the attention kernels through the CUDA driver API and launches them on torch tensors.

Mirrors src/attention.rs: the same parameter block, the same grids. Needs a fat binary (or cubin) of
the .cu files beside it and torch with a GPU; knows nothing of expected results.
"""
import ctypes as c
import pathlib

import torch

cuda = c.CDLL("libcuda.so.1")
STATIC_SHARED_LIMIT = 48 * 1024


def check(code, what):
    if code != 0:
        text = c.c_char_p()
        cuda.cuGetErrorString(code, c.byref(text))
        raise RuntimeError(f"{what}: {text.value.decode() if text.value else code}")


class Params(c.Structure):
    _fields_ = (
        [(n, c.c_void_p) for n in (
            "qkv prefix_k prefix_v out lse seq_start seq_end d_out delta d_qkv add_d_k add_d_v "
            "partial d_prefix_k d_prefix_v").split()]
        + [(n, c.c_int64) for n in "qkv_stride prefix_stride out_stride d_out_stride d_qkv_stride".split()]
        + [(n, c.c_int32) for n in "tokens prefix heads kv_heads window splits".split()]
        + [("scale", c.c_float), ("soft_cap", c.c_float), ("head_dim", c.c_int32), ("reserved", c.c_int32)])


assert c.sizeof(Params) == 200


class TensorMap(c.Structure):
    """CUtensorMap: 128 opaque bytes (the driver writes them to an aligned place)."""
    _fields_ = [("bytes", c.c_uint64 * 16)]


def tensor_map(pointer, width, rows, stride, box_rows):
    """A bf16 matrix [rows, width], rows `stride` elements apart, in boxes of 64 columns, 128-byte swizzle."""
    raw = (c.c_uint8 * 256)()
    at = (c.addressof(raw) + 127) // 128 * 128
    dims = (c.c_uint64 * 2)(width, rows)
    strides = (c.c_uint64 * 1)(stride * 2)
    box = (c.c_uint32 * 2)(64, box_rows)
    steps = (c.c_uint32 * 2)(1, 1)
    # BFLOAT16 = 9; no interleave; SWIZZLE_128B = 3; L2_256B = 3; out of range reads as zero.
    check(cuda.cuTensorMapEncodeTiled(c.c_void_p(at), 9, 2, c.c_void_p(pointer), dims, strides, box, steps, 0, 3, 3, 0),
          "cuTensorMapEncodeTiled")
    out = TensorMap()
    c.memmove(c.addressof(out), at, 128)
    return out


class Kernels:
    def __init__(self, folder):
        torch.cuda.init()
        torch.zeros(1, device="cuda")
        self.modules, self.functions = [], {}
        for path in sorted(pathlib.Path(folder).glob("attention*.fatbin")):
            module = c.c_void_p()
            check(cuda.cuModuleLoadData(c.byref(module), path.read_bytes()), f"load {path}")
            self.modules.append(module)

    def function(self, name, shared):
        if (name, shared) not in self.functions:
            f = c.c_void_p()
            if not any(cuda.cuModuleGetFunction(c.byref(f), m, name.encode()) == 0 for m in self.modules):
                raise KeyError(name)
            if shared > STATIC_SHARED_LIMIT:
                check(cuda.cuFuncSetAttribute(f, 8, shared), f"shared memory of {name}")
            self.functions[name, shared] = f
        return self.functions[name, shared]

    def launch(self, name, grid, block, shared, *args):
        grid = tuple(grid) + (1,) * (3 - len(grid))
        held = [a if isinstance(a, (c.Structure, c._SimpleCData)) else c.c_void_p(a) for a in args]
        pointers = (c.c_void_p * len(held))(*[c.addressof(a) for a in held])
        check(cuda.cuLaunchKernel(self.function(name, shared), *grid, block, 1, 1, shared, None, pointers, None), name)


class Builds:
    """The kernels of a folder, and those of other folders that a door names: `sm90@FOLDER`."""

    def __init__(self, folder):
        self.folder, self.loaded = folder, {}

    def of(self, door):
        folder = door.partition("@")[2] or self.folder
        if folder not in self.loaded:
            self.loaded[folder] = Kernels(folder)
        return self.loaded[folder]


def ceil(a, b):
    return -(-a // b)


MOVING_ROWS = {64: 64, 128: 32, 256: 16}


class Attention:
    """One problem: its buffers, its parameter block and the launches on it."""

    def __init__(self, kernels, cu_seqlens, heads, kv_heads, head_dim, prefix=0, window=0, soft_cap=0.0,
                 dtype=torch.bfloat16, door="mma", seed=0, splits=None, scale=None):
        # A door is mma, sm90, or either with @ and the folder of another build of its kernels.
        self.kernels = kernels = kernels.of(door)
        self.door, self.hd, self.dtype = door.partition("@")[0], head_dim, dtype
        self.hopper = self.door == "sm90"
        self.heads, self.kv_heads, self.prefix, self.window, self.soft_cap = heads, kv_heads, prefix, window, soft_cap
        self.lengths = [b - a for a, b in zip(cu_seqlens, cu_seqlens[1:])]
        t = self.tokens = cu_seqlens[-1]
        g = torch.Generator(device="cuda").manual_seed(seed)

        def draw(*shape):
            return torch.randn(*shape, generator=g, device="cuda").to(dtype)

        self.width, self.narrow = (heads + 2 * kv_heads) * head_dim, kv_heads * head_dim
        self.qkv, self.d_out = draw(t, self.width), draw(t, heads * head_dim)
        # The prefix's keys and values are read where its own forward left them: inside a qkv buffer.
        self.prefix_qkv = draw(max(prefix, 1), self.width)
        self.out, self.d_qkv = torch.empty_like(self.d_out), torch.empty_like(self.qkv)
        f32 = dict(device="cuda", dtype=torch.float32)
        self.lse, self.delta = torch.empty(heads, t, **f32), torch.empty(heads, t, **f32)
        self.d_prefix = torch.zeros(2, max(prefix, 1), self.narrow, **f32)
        self.splits = splits or self.default_splits()
        self.partial = torch.empty(self.splits * 2 * max(prefix, 1) * self.narrow, **f32)
        self.cu = torch.tensor(cu_seqlens, dtype=torch.int32, device="cuda")
        self.bounds = torch.empty(2, t, dtype=torch.int32, device="cuda")
        size = self.qkv.element_size()
        self.prefix_k_at = self.prefix_qkv.data_ptr() + heads * head_dim * size
        self.prefix_v_at = self.prefix_k_at + self.narrow * size
        self.p = Params(
            qkv=self.qkv.data_ptr(), prefix_k=self.prefix_k_at, prefix_v=self.prefix_v_at, out=self.out.data_ptr(),
            lse=self.lse.data_ptr(), seq_start=self.bounds[0].data_ptr(), seq_end=self.bounds[1].data_ptr(),
            d_out=self.d_out.data_ptr(), delta=self.delta.data_ptr(), d_qkv=self.d_qkv.data_ptr(), add_d_k=None, add_d_v=None,
            partial=self.partial.data_ptr(), d_prefix_k=self.d_prefix[0].data_ptr(), d_prefix_v=self.d_prefix[1].data_ptr(),
            qkv_stride=self.width, prefix_stride=self.width, out_stride=heads * head_dim, d_out_stride=heads * head_dim,
            d_qkv_stride=self.width, tokens=t, prefix=prefix, heads=heads, kv_heads=kv_heads, window=window,
            splits=self.splits, scale=scale or head_dim ** -0.5, soft_cap=soft_cap, head_dim=head_dim, reserved=0)
        kernels.launch("attention_bounds", (ceil(t, 256),), 256, 0, self.cu.data_ptr(), c.c_int(len(cu_seqlens) - 1),
                       c.c_int(t), self.bounds[0].data_ptr(), self.bounds[1].data_ptr())
        if self.hopper:
            self.maps = {
                rows: [tensor_map(self.qkv.data_ptr(), self.width, t, self.width, rows),
                       tensor_map(self.d_out.data_ptr(), heads * head_dim, t, heads * head_dim, rows),
                       tensor_map(self.prefix_k_at, self.narrow, max(prefix, 1), self.width, rows),
                       tensor_map(self.prefix_v_at, self.narrow, max(prefix, 1), self.width, rows)]
                for rows in (64, 128)}

    def key_rows(self):
        return 128 if self.hopper else 64

    def default_splits(self):
        """Parts so that the prefix's key blocks fill two rounds of 132 multiprocessors at least."""
        if self.prefix == 0:
            return 1
        blocks = ceil(self.prefix, self.key_rows()) * self.kv_heads
        tiles = ceil(self.tokens, 64) * (self.heads // self.kv_heads)
        return max(1, min(8, tiles, ceil(264, blocks)))

    def poison(self):
        for x in (self.out, self.d_qkv, self.lse, self.delta, self.partial):
            x.fill_(float("nan"))
        self.d_prefix.zero_()

    def forward(self):
        k, t = self.kernels, self.tokens
        if self.dtype == torch.float32:
            k.launch("attention_forward_f32", (ceil(t, 4), self.heads), 128, 0, self.p)
        elif self.door == "mma":
            shared = {64: 40960, 128: 81920, 256: 98304}[self.hd]
            k.launch(f"attention_forward_bf16_hd{self.hd}", (ceil(t, 64), self.heads), 128, shared, self.p)
        else:
            m = self.maps[128]
            k.launch("attention_forward_sm90_hd128", (self.heads * ceil(t, 128),), 384, 164992, self.p, m[0], m[2], m[3])

    def delta_pass(self):
        if self.dtype != torch.float32:
            self.kernels.launch("attention_delta_bf16", (ceil(self.tokens, 8), self.heads), 256, 0, self.p)

    def dq_pass(self):
        k, t = self.kernels, self.tokens
        if self.dtype == torch.float32:
            k.launch("attention_dq_f32", (ceil(t, 4), self.heads), 128, 0, self.p)
        elif self.door == "mma":
            shared = {64: 49152, 128: 65536, 256: 98304}[self.hd]
            k.launch(f"attention_dq_bf16_hd{self.hd}", (ceil(t, 64), self.heads), 128, shared, self.p)
        else:
            m = self.maps
            k.launch("attention_dq_sm90_hd128", (self.heads * ceil(t, 128),), 384, 197888, self.p, m[128][0], m[128][1],
                     m[64][0], m[64][2], m[64][3])

    def dkv_pass(self):
        k, t = self.kernels, self.tokens
        if self.dtype == torch.float32:
            k.launch("attention_dkv_f32", (ceil(self.prefix + t, 4), self.kv_heads), 128, 0, self.p)
            return
        rows = self.key_rows()
        blocks = ceil(self.prefix, rows) * self.splits + ceil(t, rows)
        if self.door == "mma":
            shared = {64: 49152, 128: 65536, 256: 98304}[self.hd] + 2 * 3 * 4 * MOVING_ROWS[self.hd]
            k.launch(f"attention_dkv_bf16_hd{self.hd}", (blocks, self.kv_heads, 2 if self.hd == 256 else 1), 128, shared, self.p)
        else:
            m = self.maps
            k.launch("attention_dkv_sm90_hd128", (self.kv_heads * blocks,), 384, 200960, self.p, m[64][0], m[64][1],
                     m[128][0], m[128][2], m[128][3])
        if self.prefix > 0:
            k.launch("attention_prefix_sum", (ceil(self.prefix * self.narrow, 1024),), 256, 0, self.p)

    def backward(self):
        self.delta_pass()
        self.dq_pass()
        self.dkv_pass()

    def results(self):
        """out, dQ, dK, dV, prefix dK, prefix dV as [heads, rows, hd] (copies)."""
        hd, h, kv = self.hd, self.heads, self.kv_heads

        def cut(x, n):
            return x.reshape(x.shape[0], n, hd).transpose(0, 1).clone()

        dq, dk, dv = self.d_qkv.split([h * hd, kv * hd, kv * hd], dim=1)
        out = {"out": cut(self.out, h), "dq": cut(dq, h), "dk": cut(dk, kv), "dv": cut(dv, kv)}
        if self.prefix:
            out |= {"dpk": cut(self.d_prefix[0], kv), "dpv": cut(self.d_prefix[1], kv)}
        return out

    def flops(self):
        """Of the forward; the backward is counted as 2.5 of it."""
        pairs = sum(n * self.prefix + n * (n + 1) // 2 for n in self.lengths)
        return 4 * pairs * self.hd * self.heads
