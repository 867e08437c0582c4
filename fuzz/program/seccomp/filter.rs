//! What the kernel does with a filter: `bpf_check_classic()` (net/core/filter.c) and
//! `seccomp_check_filter()` (kernel/seccomp.c) before it takes one, then each instruction.

use crun_lite::sys::seccomp::Instruction;

/// Bytes of `struct seccomp_data`.
const DATA: usize = 64;
/// `BPF_MAXINSNS`
const MOST: usize = 4096;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const ABOVE: u16 = 0x25;
const AT_LEAST: u16 = 0x35;
const ANY_BIT: u16 = 0x45;

/// A system call, as a filter sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) architecture: u32,
    pub(super) number: u32,
    pub(super) arguments: [u64; 6],
}

/// Panics where the kernel would refuse the filter.
pub(super) fn verify(filter: &[Instruction]) {
    assert!((1..=MOST).contains(&filter.len()), "{}", filter.len());
    for (at, instruction) in filter.iter().enumerate() {
        let left = filter.len() - at - 1;
        let k = instruction.k as usize;
        match instruction.code {
            LOAD => assert!(k < DATA && k.is_multiple_of(4), "{at}: {instruction:?}"),
            AND | RETURN => {}
            JUMP => assert!(k < left, "{at}: {instruction:?}"),
            EQUAL | ABOVE | AT_LEAST | ANY_BIT => {
                let furthest = instruction.jump_true.max(instruction.jump_false);
                assert!(usize::from(furthest) < left, "{at}: {instruction:?}");
            }
            _ => panic!("{at}: {instruction:?} is none that a filter may have"),
        }
    }
    assert_eq!(filter.last().map(|last| last.code), Some(RETURN));
}

/// What the filter returns for the call.
pub(super) fn run(filter: &[Instruction], call: &Call) -> u32 {
    let mut data = [0; DATA];
    data[..4].copy_from_slice(&call.number.to_le_bytes());
    data[4..8].copy_from_slice(&call.architecture.to_le_bytes());
    for (place, argument) in data[16..].chunks_exact_mut(8).zip(call.arguments) {
        place.copy_from_slice(&argument.to_le_bytes());
    }
    let (words, _) = data.as_chunks::<4>();
    let mut accumulator = 0;
    let mut rest = filter.iter();
    while let Some(&Instruction {
        code,
        jump_true,
        jump_false,
        k,
    }) = rest.next()
    {
        let holds = match code {
            LOAD => {
                accumulator = u32::from_le_bytes(words[k as usize / 4]);
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            RETURN => return k,
            JUMP => {
                rest = rest.as_slice()[k as usize..].iter();
                continue;
            }
            EQUAL => accumulator == k,
            ABOVE => accumulator > k,
            AT_LEAST => accumulator >= k,
            _ => accumulator & k != 0,
        };
        let skipped = if holds { jump_true } else { jump_false };
        rest = rest.as_slice()[usize::from(skipped)..].iter();
    }
    unreachable!("a filter ends with a return");
}
