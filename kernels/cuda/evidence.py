"""What the compiler made of each kernel: registers, memory and instructions, read from the compiled images.

evidence.py FATBIN... prints one line for each kernel and architecture. The build writes all lines to
<target>/cuda/evidence.txt, and a test compares them with evidence.txt beside this file.
"""

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import toolkit  # noqa: E402

HEADER = "kernel arch registers static_shared blocks_per_sm local tensor tma bulk async wide wait trigger\n"
# The instructions that each column counts.
COLUMNS = {
    "local": ["LDL", "STL"],
    "tensor": ["HMMA", "HGMMA", "QGMMA"],
    "tma": ["UTMALDG"],
    "bulk": ["UBLKCP"],
    "async": ["LDGSTS"],
    "wide": ["LDG.128"],
    "wait": ["ACQBULK"],
    "trigger": ["PREEXIT"],
}
COLUMN_OF = {name: column for column, names in COLUMNS.items() for name in names}
INSTRUCTION = re.compile(
    r"^arch = (\S+)|Function : (\w+)"
    r"|\b(LDL|STL|HMMA|HGMMA|QGMMA|UTMALDG|UBLKCP|LDGSTS|ACQBULK|PREEXIT)\b|\b(LDG)\.\S*128\b",
    re.MULTILINE,
)
REGISTERS_PER_SM = 65536
THREADS_PER_SM = {"sm_80": 2048, "sm_86": 1536, "sm_89": 1536, "sm_90a": 2048}


def evidence(fatbin):
    """The lines of an image."""
    kernels = usage(fatbin)
    threads = launch_bounds(fatbin)
    counts = instructions(fatbin)
    lines = []
    for (kernel, arch), (registers, shared) in sorted(kernels.items()):
        blocks = blocks_per_sm(arch, registers, threads.get(kernel, 1024))
        found = " ".join(str(counts[kernel, arch][column]) for column in COLUMNS)
        lines.append(f"{kernel} {arch} {registers} {shared} {blocks} {found}\n")
    return lines


def dump(fatbin, kind):
    ran = subprocess.run([toolkit.cuobjdump(), kind, fatbin], capture_output=True, text=True, check=True)
    return ran.stdout


def usage(fatbin):
    """Registers of a thread and static shared memory of a block, for each kernel and architecture."""
    found, arch = {}, None
    text = dump(fatbin, "-res-usage")
    for match in re.finditer(r"arch = (\S+)|Function (\w+):\s+REG:(\d+) STACK:\d+ SHARED:(\d+)", text):
        if match[1]:
            arch = match[1]
        else:
            found[match[2], arch] = (int(match[3]), int(match[4]))
    return found


def launch_bounds(fatbin):
    """Most threads of a block of each kernel."""
    pattern = r"\.entry (\w+)\([^{]*?\.maxntid (\d+)"
    return {kernel: int(threads) for kernel, threads in re.findall(pattern, dump(fatbin, "-ptx"))}


def instructions(fatbin):
    """How often each kernel has the instructions of each column."""
    found, arch, counts = {}, None, None
    for of_arch, kernel, name, wide in INSTRUCTION.findall(dump(fatbin, "-sass")):
        if of_arch:
            arch = of_arch
        elif kernel:
            counts = found[kernel, arch] = dict.fromkeys(COLUMNS, 0)
        else:
            counts[COLUMN_OF[name or "LDG.128"]] += 1
    return found


def blocks_per_sm(arch, registers, threads):
    """Blocks of the largest size that the registers and threads of a multiprocessor allow at the same time."""
    warps = -(-threads // 32)
    of_warp = -(-registers * 32 // 256) * 256
    # Each of the four schedulers has a quarter of the registers and takes whole warps.
    by_registers = REGISTERS_PER_SM // 4 // of_warp * 4 // warps
    return min(by_registers, THREADS_PER_SM[arch] // (warps * 32))


if __name__ == "__main__":
    print(HEADER, end="")
    for path in sys.argv[1:]:
        print("".join(evidence(path)), end="")
