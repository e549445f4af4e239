//! The series that requests count in, resolved once for each kind of request and then found without allocating.

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher as _;
use std::sync::atomic::AtomicU64;

use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::cells::histogram::Histogram;
use crate::cells::search::Search;
use crate::clock::monotonic_ns;
use crate::closed::{Method, Role};
use crate::http_metrics::{
    DURATION, DURATION_BOUNDS, EXCEPTIONS, LOST, REQUEST_BYTES, RESPONSE_BYTES, STARTED,
};
use crate::keys::{Family, words_of};
use crate::layout::size;
use crate::series::OTHER;
use crate::slot::Slot;

/// The label of a request that no route was named for.
pub(crate) const UNMATCHED: &str = "unmatched";
/// Route templates a process may name; further ones are `other` (W92).
const MOST_ROUTES: usize = 200;
/// Types of exceptions a process may name; further ones are `other`.
const MOST_EXCEPTIONS: usize = 64;
/// Templates, and kinds of requests, that are found without their tables: a few make almost all of the load.
const RECENT: usize = 16;

/// A route template: its string in the slot, and its text for as long as the process lives.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Route {
    pub(crate) id: u32,
    pub(crate) text: &'static str,
}

/// A counter of the owner's.
pub(crate) type Count = &'static AtomicU64;

/// Where the numbers of one kind of request go.
#[derive(Copy, Clone)]
pub(crate) struct Cells {
    pub(crate) duration: Limited<Histogram<'static>>,
    pub(crate) request_bytes: Limited<Count>,
    pub(crate) response_bytes: Limited<Count>,
}

/// Cells, and whether they are those of the overflow series because the family has too many label sets (F55).
#[derive(Copy, Clone)]
pub(crate) struct Limited<T> {
    pub(crate) cells: T,
    pub(crate) is_over: bool,
}

/// A kind of request, and the type of what it threw.
type Thrown = (u64, &'static str);

/// The overflow series of the families of requests. They are made before a request is counted, so that each one that is
/// counted as started has a place to be counted as finished, also when there is no space for a series of its own (F42).
#[derive(Copy, Clone)]
struct LastResort {
    started: Count,
    cells: Cells,
    exceptions: Limited<Count>,
}

/// Cells that were found, and when to ask for better ones: never, once each is of its own label set.
#[derive(Copy, Clone)]
struct Known<T> {
    found: T,
    ask_again_ns: u64,
}

pub(crate) struct Endings {
    slot: &'static Slot,
    started: [Cell<Option<Count>>; Method::ALL.len() + 1],
    last_resort: Cell<Option<LastResort>>,
    ask_again_ns: Cell<u64>,
    routes: RefCell<FxHashMap<&'static str, Route>>,
    /// Those that were named lately, by the template as given, each at a place that is quick to tell.
    recent_routes: [Cell<Option<(&'static str, Route)>>; RECENT],
    cells: RefCell<FxHashMap<u64, Known<Cells>>>,
    /// Of these the final ones that were asked for lately, each at the place its key hashes to: one look finds it.
    recent: [Cell<Option<(u64, Cells)>>; RECENT],
    exceptions: RefCell<FxHashMap<Thrown, Known<Limited<Count>>>>,
    exception_types: RefCell<FxHashMap<String, &'static str>>,
    unmatched: Route,
    other: Route,
}

impl Endings {
    pub(crate) fn new(slot: &'static Slot) -> Self {
        let is_worker = slot.sections().in_flight.capacity > 0;
        let named =
            |text: &'static str| Route { id: if is_worker { slot.string(text) } else { 0 }, text };
        let endings = Self {
            slot,
            started: Default::default(),
            last_resort: Cell::new(None),
            ask_again_ns: Cell::new(if is_worker { 0 } else { NEVER }),
            routes: RefCell::default(),
            recent_routes: Default::default(),
            cells: RefCell::default(),
            recent: Default::default(),
            exceptions: RefCell::default(),
            exception_types: RefCell::default(),
            unmatched: named(UNMATCHED),
            other: Route { id: 0, text: OTHER },
        };
        if is_worker {
            endings.ask();
        } else if slot.role() == Role::Supervisor {
            // So that each request that died has a place where it counts; a refusal is counted and asked again then.
            slot.find(&LOST, &[OTHER; 2]);
        }
        endings
    }

    pub(crate) fn unmatched(&self) -> Route {
        self.unmatched
    }

    /// The cell in which a request that begins is counted. None while there is no space even for the last resort: such a
    /// request is not counted at all, neither here nor at its end, and does not stand in the table.
    pub(crate) fn started(&self, method: Method) -> Option<Count> {
        let cell = &self.started[usize::from(method.number())];
        cell.get().or_else(|| {
            if monotonic_ns() >= self.ask_again_ns.get() {
                self.ask();
            }
            cell.get().or(self.last_resort.get().map(|last_resort| last_resort.started))
        })
    }

    /// Makes what requests need to be counted at all.
    #[cold]
    fn ask(&self) {
        self.ask_again_ns.set(soon());
        let Some(last_resort) = self.last_resort.get().or_else(|| self.find_last_resort()) else {
            return;
        };
        self.last_resort.set(Some(last_resort));
        for method in Method::ALL {
            let cell = &self.started[usize::from(method.number())];
            if cell.get().is_none() {
                cell.set(self.find(&STARTED, &[method.as_str()]).map(|found| found.cells));
            }
        }
    }

    fn find_last_resort(&self) -> Option<LastResort> {
        Some(LastResort {
            started: self.find(&STARTED, &[OTHER])?.cells,
            cells: Cells {
                duration: self.find_duration(&[OTHER; 3])?,
                request_bytes: self.find(&REQUEST_BYTES, &[OTHER; 2])?,
                response_bytes: self.find(&RESPONSE_BYTES, &[OTHER; 2])?,
            },
            exceptions: self.find(&EXCEPTIONS, &[OTHER; 3])?,
        })
    }

    fn find(&self, family: &Family<'_>, labels: &[&str]) -> Option<Limited<Count>> {
        let found = self.slot.find(family, labels)?;
        Some(Limited { cells: self.slot.map.word(found.offset), is_over: found.overflow })
    }

    fn find_duration(&self, labels: &[&str]) -> Option<Limited<Histogram<'static>>> {
        let words = words_of(DURATION.kind, DURATION.mode, DURATION.bounds.len());
        let found = self.slot.find(&DURATION, labels)?;
        let cells =
            Histogram::of(self.slot.map.words(found.offset, words), DURATION_BOUNDS.len() + 1)?;
        Some(Limited { cells, is_over: found.overflow })
    }

    #[inline]
    pub(crate) fn route(&self, template: &str) -> Route {
        // Almost always the same few pieces of memory; what stands there may have changed.
        let recent =
            &self.recent_routes[((template.as_ptr().addr() / 8) ^ template.len()) % RECENT];
        match recent.get() {
            Some((text, route)) if text == template => route,
            _ => self.find_route(template, recent),
        }
    }

    #[inline(never)]
    fn find_route(&self, template: &str, recent: &Cell<Option<(&'static str, Route)>>) -> Route {
        let mut routes = self.routes.borrow_mut();
        if let Some((text, route)) = routes.get_key_value(template) {
            recent.set(Some((text, *route)));
            return *route;
        }
        if template == UNMATCHED {
            return self.unmatched;
        }
        if routes.len() >= MOST_ROUTES {
            return self.other;
        }
        let text = crate::record::encode::cut(template, 128);
        let id = self.slot.string(text);
        if id == 0 {
            return self.other; // and asked again: there may be space the next time
        }
        let route = Route { id, text: text.to_owned().leak() };
        // By the template as given: a longer one is then cut once, not each time.
        routes.insert(template.to_owned().leak(), route);
        route
    }

    /// Where a request that was counted as started is counted as finished; none for others.
    #[inline]
    pub(crate) fn cells(&self, method: Method, route: Route, status: u16) -> Option<Cells> {
        let key = key(method, route, status);
        match self.recent(key).get() {
            Some((of, found)) if of == key => Some(found),
            _ => self.find_cells(key, method, route, status),
        }
    }

    fn recent(&self, key: u64) -> &Cell<Option<(u64, Cells)>> {
        &self.recent[size(FxBuildHasher.hash_one(key)) % RECENT]
    }

    /// From the table, or made. Not in line: hardly any request comes here.
    #[inline(never)]
    fn find_cells(&self, key: u64, method: Method, route: Route, status: u16) -> Option<Cells> {
        if let Some(known) = self.cells.borrow().get(&key)
            && known.is_current()
        {
            if known.is_final() {
                self.recent(key).set(Some((key, known.found)));
            }
            return Some(known.found);
        }
        let last_resort = self.last_resort.get()?.cells;
        let text = if status == 0 { String::new() } else { status.to_string() };
        let labels = [method.as_str(), route.text, &text];
        let duration = self.find_duration(&labels);
        let request_bytes = self.find(&REQUEST_BYTES, &labels[..2]);
        let response_bytes = self.find(&RESPONSE_BYTES, &labels[..2]);
        let is_whole = duration.is_some() && request_bytes.is_some() && response_bytes.is_some();
        let found = Cells {
            duration: duration.unwrap_or(last_resort.duration),
            request_bytes: request_bytes.unwrap_or(last_resort.request_bytes),
            response_bytes: response_bytes.unwrap_or(last_resort.response_bytes),
        };
        self.cells.borrow_mut().insert(key, Known::of(found, is_whole));
        Some(found)
    }

    pub(crate) fn exceptions(
        &self,
        method: Method,
        route: Route,
        exception: &str,
    ) -> Option<Limited<Count>> {
        let exception = self.exception_text(exception);
        let key = (key(method, route, 0), exception);
        if let Some(known) = self.exceptions.borrow().get(&key)
            && known.is_current()
        {
            return Some(known.found);
        }
        let own = self.find(&EXCEPTIONS, &[method.as_str(), route.text, exception]);
        let found = own.or(self.last_resort.get().map(|last_resort| last_resort.exceptions))?;
        self.exceptions.borrow_mut().insert(key, Known::of(found, own.is_some()));
        Some(found)
    }

    /// The type of an exception as one of a bounded number of texts.
    pub(crate) fn exception_text(&self, exception: &str) -> &'static str {
        let mut types = self.exception_types.borrow_mut();
        if let Some(text) = types.get(exception) {
            return text;
        }
        if types.len() >= MOST_EXCEPTIONS {
            return OTHER;
        }
        let text: &'static str = crate::record::encode::cut(exception, 128).to_owned().leak();
        types.insert(exception.to_owned(), text);
        text
    }
}

impl<T> Known<T> {
    fn of(found: T, is_whole: bool) -> Self {
        Self { found, ask_again_ns: if is_whole { NEVER } else { soon() } }
    }

    /// Whether to count there, or to ask first; the clock is read only for a place of last resort.
    fn is_current(&self) -> bool {
        self.is_final() || monotonic_ns() < self.ask_again_ns
    }

    fn is_final(&self) -> bool {
        self.ask_again_ns == NEVER
    }
}

const NEVER: u64 = u64::MAX;

/// When to ask again for space: a refusal is a system call.
fn soon() -> u64 {
    monotonic_ns().saturating_add(1_000_000_000)
}

fn key(method: Method, route: Route, status: u16) -> u64 {
    u64::from(route.id) << 32 | u64::from(method.number()) << 16 | u64::from(status)
}

/// The bucket of the duration histogram that a number of seconds falls into.
pub(crate) fn bucket(seconds: f64) -> usize {
    SEARCH.bucket(seconds)
}

static SEARCH: Search = Search::of(&DURATION_BOUNDS);

/// Nanoseconds as seconds. Beyond 2⁵³ ns (104 days) the last digits are rounded.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "no lossless way exists, and none is needed"
)]
pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_template_is_known_by_its_text_and_not_by_where_it_stands() {
        let endings = Endings::new(Slot::in_memory());
        let mut template = String::with_capacity(8);
        for text in ["/a/{x}", "/b/{y}", "/a/{x}"] {
            template.clear();
            template.push_str(text);
            let routes = [(); 3].map(|()| endings.route(&template));
            assert_eq!(routes.map(|route| route.text), [text; 3]);
            assert_eq!(routes.map(|route| route.id), [routes[0].id; 3]);
        }
    }

    #[test]
    fn kinds_of_one_place_keep_each_its_own_cells() {
        let endings = Endings::new(Slot::in_memory());
        let routes = (0..4 * RECENT).map(|number| endings.route(&format!("/{number}")));
        let routes: Vec<Route> = routes.collect();
        let cells = |route: &Route| {
            let cells = endings.cells(Method::Get, *route, 200).expect("a worker's slot has room");
            std::ptr::from_ref(cells.request_bytes.cells)
        };
        let first: Vec<_> = routes.iter().map(cells).collect();
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), routes.len());
        // Each twice at once: found in the table, then at its place.
        for (route, first) in routes.iter().zip(&first) {
            assert_eq!([cells(route), cells(route)], [*first; 2], "{route:?}");
        }
    }
}
