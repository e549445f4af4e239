//! What is asked, how often, and which statuses are right.

use fastrand::Rng;
use hyper::Method;

/// One kind of request.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    /// How the summary calls it.
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    path: Path,
    pub(crate) body: Option<&'static str>,
    /// The statuses that are no surprise.
    pub(crate) expected: &'static [u16],
    weight: u32,
}

#[derive(Copy, Clone, Debug)]
enum Path {
    Fixed(&'static str),
    /// A number from 1 to 100 behind it.
    Numbered(&'static str),
}

/// Kinds and their weights, which add up to 1,000.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    pub(crate) kinds: Vec<Kind>,
}

impl Mix {
    /// `default`, `incident` or `healthy`.
    pub(crate) fn named(name: &str) -> Self {
        let kinds = match name {
            "incident" => incident(),
            "healthy" => healthy(),
            _ => usual(),
        };
        Self { kinds }
    }

    /// Draws a kind: its place among the kinds.
    pub(crate) fn draw(&self, rng: &mut Rng) -> usize {
        let mut left = rng.u32(0..self.kinds.iter().map(|kind| kind.weight).sum::<u32>().max(1));
        for (at, kind) in self.kinds.iter().enumerate() {
            if left < kind.weight {
                return at;
            }
            left -= kind.weight;
        }
        0
    }
}

impl Kind {
    /// The path of one request of this kind.
    pub(crate) fn path(&self, rng: &mut Rng) -> String {
        match self.path {
            Path::Fixed(path) => path.to_owned(),
            Path::Numbered(prefix) => format!("{prefix}{}", rng.u8(1..=100)),
        }
    }
}

fn get(weight: u32, name: &'static str, path: Path, expected: &'static [u16]) -> Kind {
    Kind { name, method: Method::GET, path, body: None, expected, weight }
}

fn fixed(weight: u32, path: &'static str, expected: &'static [u16]) -> Kind {
    get(weight, path, Path::Fixed(path), expected)
}

fn post(
    weight: u32,
    name: &'static str,
    path: &'static str,
    body: &'static str,
    expected: &'static [u16],
) -> Kind {
    Kind { name, method: Method::POST, path: Path::Fixed(path), body: Some(body), expected, weight }
}

/// What is neither slow nor wrong, to which the others add.
fn plain(index: u32) -> Vec<Kind> {
    vec![
        fixed(index, "/", &[200]),
        fixed(250, "/api/items", &[200]),
        get(280, "/api/items/{id}", Path::Numbered("/api/items/"), &[200]),
        post(80, "POST /api/items", "/api/items", r#"{"name":"load","price":1.5}"#, &[201]),
        post(90, "POST /api/orders", "/api/orders", r#"{"item_id":7,"quantity":2}"#, &[201]),
        fixed(30, "/health", &[200]),
    ]
}

/// 4xx that a live server has all the time: no alert.
fn refused() -> Vec<Kind> {
    vec![
        get(20, "/api/items/500", Path::Fixed("/api/items/500"), &[404]),
        get(15, "/api/items/-1", Path::Fixed("/api/items/-1"), &[400]),
        post(15, "POST /api/items (blank)", "/api/items", r#"{"name":" "}"#, &[422]),
        fixed(15, "/api/orders/999999999", &[404]),
        fixed(10, "/api/bad-request", &[400]),
        fixed(5, "/no-such-page", &[404]),
    ]
}

/// Errors and slow answers, in the given weights of server errors, panics, slow, very slow, computing and random.
fn troubles(weights: [u32; 6]) -> Vec<Kind> {
    let [server_error, exception, slow, very_slow, cpu, random] = weights;
    vec![
        fixed(server_error, "/api/server-error", &[500]),
        fixed(exception, "/api/exception", &[500]),
        fixed(slow, "/api/slow", &[200]),
        fixed(very_slow, "/api/very-slow", &[200]),
        fixed(cpu, "/api/cpu", &[200, 503]),
        fixed(random, "/api/random", &[200, 400, 500]),
    ]
}

/// About 1 % of 5xx and 0.5 % over a second: nothing alerts.
fn usual() -> Vec<Kind> {
    [plain(168), refused(), troubles([5, 3, 2, 1, 2, 9]), vec![fixed(0, "/ready", &[200])]].concat()
}

/// 15 % of 5xx and 10 % slow: latency and errors alert.
fn incident() -> Vec<Kind> {
    let mut kinds = [plain(20), refused(), troubles([100, 50, 70, 30, 10, 10])].concat();
    for kind in &mut kinds {
        if kind.name == "/api/items" || kind.name == "/api/items/{id}" {
            kind.weight -= 50;
        }
    }
    kinds
}

fn healthy() -> Vec<Kind> {
    [plain(190), refused()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_to_a_thousand() {
        for name in ["default", "incident", "healthy"] {
            let sum: u32 = Mix::named(name).kinds.iter().map(|kind| kind.weight).sum();
            assert_eq!(sum, 1_000, "{name}");
        }
    }

    #[test]
    fn a_seed_repeats_the_same_requests() {
        let mix = Mix::named("default");
        let draw = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..50).map(|_| mix.draw(&mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
