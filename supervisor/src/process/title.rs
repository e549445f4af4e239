//! What `ps` shows: the process writes over its own arguments, and over the environment behind them (S63).

use std::ffi::CString;
use std::fs;

use nix::sys::prctl;

/// The memory in which the kernel looks for a process's title.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Title {
    start: usize,
    len: usize,
}

impl Title {
    /// Takes the memory of the arguments and the environment; the environment moves elsewhere first.
    /// Whoever wants the arguments has copied them before. Without `/proc` there is no title.
    pub(crate) fn claim() -> Self {
        let nowhere = Self { start: 0, len: 0 };
        let Some(area) = area() else { return nowhere };
        move_environment();
        area
    }

    /// Sets the title, cut to fit, and the name of the thread (15 bytes), for tools that look there.
    pub(crate) fn set(self, title: &str) {
        self.write(title.as_bytes());
        let role = title.strip_prefix("saola: ").unwrap_or(title);
        let short: String = format!("saola-{}", role.replace(' ', "-")).chars().take(15).collect();
        if let Ok(short) = CString::new(short) {
            // A name is a convenience; prctl refuses it to nobody.
            let _refused = prctl::set_name(&short);
        }
    }

    #[expect(unsafe_code, reason = "the kernel reads the title where it put the arguments")]
    fn write(self, title: &[u8]) {
        let Some(room) = self.len.checked_sub(1) else { return };
        let start: *mut u8 = std::ptr::with_exposed_provenance_mut(self.start);
        let cut = title.get(..title.len().min(room)).unwrap_or_default();
        // SAFETY: write_bytes wants `len` writable bytes: the kernel says that the arguments and the environment lie here,
        // on the stack, which is writable and lives as long as the process. Nobody reads them any more: arguments were
        // copied by our caller, and `move_environment` has moved the rest.
        unsafe { start.write_bytes(0, self.len) };
        // SAFETY: as above; `cut` is shorter than `len`, and not part of that memory.
        unsafe { start.copy_from_nonoverlapping(cut.as_ptr(), cut.len()) };
    }
}

/// What `ps` shows of a worker: the worker itself says how far it is.
#[derive(Clone, Debug)]
pub struct WorkerTitle {
    pub(crate) title: Title,
    pub(crate) text: String,
}

impl WorkerTitle {
    /// It takes no new connection, and finishes those that it has.
    pub fn draining(&self) {
        self.title.set(&format!("{} draining", self.text));
    }
}

/// From the first argument to the end of the environment, if they lie together as they do on Linux.
fn area() -> Option<Title> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let field =
        |number: usize| fields.split_ascii_whitespace().nth(number - 3)?.parse::<usize>().ok();
    let (arg_start, arg_end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
    if arg_start == 0 || arg_end <= arg_start {
        return None;
    }
    let end = if env_start == arg_end && env_end > env_start { env_end } else { arg_end };
    Some(Title { start: arg_start, len: end - arg_start })
}

/// Sets every variable to the value it has: the C library then keeps its own copy.
#[expect(unsafe_code, clippy::disallowed_methods, reason = "no other thread reads the environment")]
fn move_environment() {
    let variables: Vec<_> = std::env::vars_os().collect();
    for (name, value) in variables {
        // SAFETY: set_var must not race with another thread's look at the environment; the supervisor has one thread,
        // which `supervisor.rs` has checked just before.
        unsafe { std::env::set_var(name, value) };
    }
}
