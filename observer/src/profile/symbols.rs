//! Names for program counters. Workers and observer are forks of one process: what an address means here, it meant there.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// A function at an address; several where calls were inlined.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct Frame {
    pub(crate) function: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// The names that were looked up.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    known: HashMap<u64, Arc<[Frame]>>,
    regions: Vec<Region>,
}

/// A mapping of this process.
#[derive(Debug)]
struct Region {
    start: u64,
    end: u64,
    name: String,
}

impl Symbols {
    /// The functions at a program counter, the innermost of inlined ones first; never empty. A return address stands behind
    /// its call, so all but the leaf of a stack mean the byte before.
    pub(crate) fn frames(&mut self, counter: u64, is_leaf: bool) -> Arc<[Frame]> {
        let address = if is_leaf { counter } else { counter.saturating_sub(1) };
        if let Some(known) = self.known.get(&address) {
            return Arc::clone(known);
        }
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        let mut frames = resolve(address);
        if frames.is_empty() {
            frames.push(Frame { function: self.region(address), file: String::new(), line: 0 });
        }
        let frames: Arc<[Frame]> = frames.into();
        self.known.insert(address, Arc::clone(&frames));
        frames
    }

    /// What an address without a symbol belongs to: `[vdso]`, `[libc.so.6]` or `[unknown]`.
    fn region(&mut self, address: u64) -> String {
        if self.regions.is_empty() {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
            self.regions = maps.lines().filter_map(Region::parse).collect();
        }
        let found =
            self.regions.iter().find(|region| (region.start..region.end).contains(&address));
        let name = found.map_or("", |region| region.name.as_str());
        match name {
            "" => "[unknown]".to_owned(),
            name if name.starts_with('[') => name.to_owned(),
            path => {
                let file = Path::new(path).file_name().unwrap_or_default();
                format!("[{}]", file.to_string_lossy())
            }
        }
    }
}

impl Region {
    /// Reads a line of `/proc/PID/maps` (proc(5)).
    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split_ascii_whitespace();
        let (start, end) = columns.next()?.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let name = columns.nth(4).unwrap_or_default().to_owned();
        Some(Self { start: hex(start)?, end: hex(end)?, name })
    }
}

fn resolve(address: u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    // The crate takes every address for a return address, and subtracts 1.
    let address = usize::try_from(address.saturating_add(1)).unwrap_or(0);
    backtrace::resolve(std::ptr::without_provenance_mut(address), |symbol| {
        if let Some(name) = symbol.name() {
            let file = symbol.filename().map(|path| path.display().to_string()).unwrap_or_default();
            // Without the hash that makes it unique to the linker.
            let function = qualified(format!("{name:#}"), &file);
            frames.push(Frame { function, file, line: symbol.lineno().unwrap_or(0) });
        }
    });
    frames
}

/// A name with the module it is in. Line tables alone know a function as `poll`, of which every profile is full; where it
/// stands tells which one: `tokio::runtime::task::core::poll`.
fn qualified(name: String, file: &str) -> String {
    // `::` inside of the types that a function was made for says nothing about its own place.
    let own = name.split_once('<').map_or(name.as_str(), |(own, _)| own);
    let is_bare = !own.is_empty() && !own.contains("::");
    let Some(path) = file.strip_suffix(".rs").filter(|_| is_bare) else { return name };
    let (folder, inside) = path.rsplit_once("/src/").unwrap_or_else(|| {
        // Neither a library nor a program: a test or an example.
        ("", path.rsplit_once('/').map_or(path, |(_, file)| file))
    });
    let folder = folder.rsplit_once('/').map_or(folder, |(_, last)| last);
    // A folder of the registry ends in the version: `tokio-1.54.1`.
    let is_version = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    let package = match folder.rsplit_once('-') {
        Some((package, version)) if is_version(version) => package,
        _ => folder,
    };
    let places = std::iter::once(package).chain(inside.split('/'));
    let places = places.filter(|place| !matches!(*place, "" | "lib" | "main" | "mod"));
    places.map(|place| place.replace('-', "_")).chain([name]).collect::<Vec<_>>().join("::")
}

const MOST_KNOWN: usize = 32_768;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_program_has_the_name_of_its_function() {
        let mut symbols = Symbols::default();
        #[expect(clippy::as_conversions, reason = "the address of a function")]
        let address = u64::try_from(known_function as fn() as *const () as usize).unwrap();
        let frames = symbols.frames(address, true);
        assert!(frames[0].function.ends_with("known_function"), "{frames:?}");
        assert!(frames[0].file.ends_with("symbols.rs") && frames[0].line > 0, "{frames:?}");
        assert!(Arc::ptr_eq(&frames, &symbols.frames(address + 1, false)), "a return address");
    }

    #[test]
    fn a_name_says_where_its_function_is() {
        let tokio = "/root/.cargo/registry/src/index-1/tokio-1.54.1/src/runtime/task/core.rs";
        for (name, file, full) in [
            ("poll<a::B>", tokio, "tokio::runtime::task::core::poll<a::B>"),
            ("fold", "/rustc/5980/library/core/src/iter/mod.rs", "core::iter::fold"),
            ("next", "/x/hyper-util-0.1.21/src/lib.rs", "hyper_util::next"),
            ("main", "/home/me/my-shop/src/main.rs", "my_shop::main"),
            ("std::rt::main", "/rustc/5980/library/std/src/rt.rs", "std::rt::main"),
            ("<a::B as C>::go", "/home/me/shop/src/a.rs", "<a::B as C>::go"),
            ("{async_fn#0}", "/home/me/shop/examples/cart.rs", "cart::{async_fn#0}"),
            ("read", "/usr/src/libc/read.c", "read"),
            ("read", "", "read"),
        ] {
            assert_eq!(qualified(name.to_owned(), file), full, "{file}");
        }
    }

    #[test]
    fn an_address_without_a_symbol_still_has_a_name() {
        let mut symbols = Symbols::default();
        assert_eq!(symbols.frames(16, true)[0].function, "[unknown]");
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
        let region = Region::parse(line).unwrap();
        assert_eq!(symbols.region(region.start), "[vdso]");
    }

    #[inline(never)]
    fn known_function() {
        std::hint::black_box(1);
    }
}
