//! Following the frame pointers of an interrupted thread, as a signal handler may: no lock, no allocation, no call.

use nix::libc;

/// Whether stacks of this machine can be followed.
pub const IS_KNOWN: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Hands out the program counters of the thread that a signal interrupted, innermost first, until `take` says false.
///
/// `context` is the third argument of the handler, `end` what [`end`] said of this thread's stack: only words between the
/// stack pointer and there are read. Code that was built without frame pointers ends the walk, or hides a caller.
pub fn walk(context: *const libc::ucontext_t, end: usize, mut take: impl FnMut(usize) -> bool) {
    let Some(Registers { pc, sp, mut frame }) = registers(context) else { return };
    let mut floor = sp;
    let mut next = pc;
    while take(next) {
        let is_frame = frame.is_multiple_of(size_of::<usize>())
            && frame >= floor
            && frame.checked_add(2 * size_of::<usize>()).is_some_and(|top| top <= end);
        if !is_frame {
            return;
        }
        next = peek(frame + size_of::<usize>());
        if next == 0 {
            return;
        }
        floor = frame + 2 * size_of::<usize>();
        frame = peek(frame);
    }
}

/// Where the stack of the calling thread ends; 0 where nobody says: then no frame is followed. Not for a handler.
pub fn end() -> usize {
    let local = 0_u8;
    let inside = (&raw const local).addr();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let bounds = maps.lines().filter_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let hex = |text| usize::from_str_radix(text, 16).ok();
        Some(hex(start)?..hex(end)?)
    });
    bounds.into_iter().find(|bounds| bounds.contains(&inside)).map_or(0, |bounds| bounds.end)
}

struct Registers {
    pc: usize,
    sp: usize,
    frame: usize,
}

#[expect(unsafe_code, reason = "a stack is read as words")]
fn peek(address: usize) -> usize {
    let word: *const usize = std::ptr::with_exposed_provenance(address);
    // SAFETY: the caller has checked that the word is aligned and lies between the stack pointer and the stack's end,
    // which is mapped and readable, and which this thread, being in its handler, does not change.
    unsafe { word.read_volatile() }
}

#[expect(
    unsafe_code,
    clippy::as_conversions,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "registers are addresses"
)]
fn registers(context: *const libc::ucontext_t) -> Option<Registers> {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid context, or null.
    let machine = unsafe { context.as_ref() }?.uc_mcontext;
    #[cfg(target_arch = "x86_64")]
    {
        let register = |number: libc::c_int| {
            machine.gregs.get(usize::try_from(number).ok()?).map(|value| *value as usize)
        };
        Some(Registers {
            pc: register(libc::REG_RIP)?,
            sp: register(libc::REG_RSP)?,
            frame: register(libc::REG_RBP)?,
        })
    }
    #[cfg(target_arch = "aarch64")]
    {
        let frame = *machine.regs.get(29)? as usize;
        Some(Registers { pc: machine.pc as usize, sp: machine.sp as usize, frame })
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    None
}
