//! Checking what lies still: all live slots' canaries, all freed slots' contents.
//!
//! Runs at exit and on request, beside threads that go on allocating. A slot that looks wrong is
//! looked at again a few times with pauses: what another thread was in the middle of is over then.

use super::layout::{ClassInfo, layout};
use super::misuse::{is_as_freed, overwritten, touched};
use super::{central, class};
use crate::fault::Fault;
use crate::sys::thread;

/// Looks at a suspicious slot again so many times, this many microseconds apart.
const LOOKS: u32 = 5;
const PAUSE_MICROS: u32 = 1000;

/// Checks every slot of every class; hands what is wrong to `found` until it returns `false`.
pub fn all(mut found: impl FnMut(Fault) -> bool) {
    for class in 0..class::COUNT {
        let mut go_on = true;
        central::each_slab(class, |info, slots| {
            for slot in slots {
                if let Some(fault) = settled(info, slot) {
                    go_on = found(fault);
                    if !go_on {
                        return false;
                    }
                }
            }
            true
        });
        if !go_on {
            return;
        }
    }
}

/// Checks the freed slots of a slab that is in nobody's hands.
pub fn check_freed(info: &'static ClassInfo, slab: u32) -> Result<(), Fault> {
    let first = slab << info.slab_shift;
    for slot in first + 1..first + info.usable_end {
        if info.load(slot).is_freed()
            && let Some(fault) = check(info, slot)
        {
            return Err(fault);
        }
    }
    Ok(())
}

/// What is wrong with a slot, if it stays wrong.
fn settled(info: &'static ClassInfo, slot: u32) -> Option<Fault> {
    let mut fault = check(info, slot)?;
    for _ in 0..LOOKS {
        thread::sleep_micros(PAUSE_MICROS);
        fault = check(info, slot)?;
    }
    Some(fault)
}

/// What is wrong with a slot now.
pub fn check(info: &'static ClassInfo, slot: u32) -> Option<Fault> {
    let state = info.load(slot);
    match state {
        // SAFETY: a freed slot's slab is open: its memory is mapped.
        freed if freed.is_freed() => (!unsafe { is_as_freed(info, slot) }).then(|| touched(info, slot)),
        live if live.is_live() && layout().protection.canary => overwritten(info, slot, live),
        _ => None,
    }
}
