//! What is asked, how often, and which statuses are right.

use fastrand::Rng;
use hyper::Method;
use serde_json::json;

use crate::load::http::Call;
use crate::load::world::{Then, World};

/// One kind of request.
#[derive(Debug)]
pub(crate) struct Kind {
    /// How the summary calls it.
    pub(crate) name: &'static str,
    /// Of 1,000 requests in the default, the incident and the healthy mix.
    weights: [u32; 3],
    /// The statuses that are no surprise.
    pub(crate) expected: &'static [u16],
    make: fn(&World, &mut Rng) -> Option<Call>,
    pub(crate) then: Then,
}

/// How often each kind is asked.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Mix {
    /// As a live server has it: some refusals, about 1.3 % of 5xx and 0.6 % over a second; nothing alerts.
    Default,
    /// 15 % of 5xx and 10 % over a second: errors and latency alert.
    Incident,
    /// Neither 5xx nor slow answers.
    Healthy,
}

impl Mix {
    /// `default`, `incident` or `healthy`.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "incident" => Self::Incident,
            "healthy" => Self::Healthy,
            _ => Self::Default,
        }
    }

    /// Draws the next request: the place of its kind in [`KINDS`], and the request.
    ///
    /// A kind whose object is missing, or busy, is drawn again.
    pub(crate) fn draw(self, world: &World, rng: &mut Rng) -> (usize, Call) {
        loop {
            let at = self.draw_kind(rng);
            if let Some(call) = KINDS.get(at).and_then(|kind| (kind.make)(world, rng)) {
                return (at, call);
            }
        }
    }

    fn draw_kind(self, rng: &mut Rng) -> usize {
        let mut left = rng.u32(0..1_000);
        for (at, kind) in KINDS.iter().enumerate() {
            let weight = self.weight(kind);
            if left < weight {
                return at;
            }
            left -= weight;
        }
        0
    }

    const fn weight(self, kind: &Kind) -> u32 {
        let [default, incident, healthy] = kind.weights;
        match self {
            Self::Default => default,
            Self::Incident => incident,
            Self::Healthy => healthy,
        }
    }
}

const fn kind(
    weights: [u32; 3],
    name: &'static str,
    expected: &'static [u16],
    make: fn(&World, &mut Rng) -> Option<Call>,
) -> Kind {
    Kind { name, weights, expected, make, then: Then::Nothing }
}

impl Kind {
    const fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }
}

fn checkout(item: &str, quantity: u32) -> Call {
    Call::post("/checkout", &json!({ "item": item, "quantity": quantity }))
}

/// Every kind; the weights of each mix add up to 1,000.
#[rustfmt::skip] // a table: a line for each kind
pub(crate) static KINDS: &[Kind] = &[
    // default, incident, healthy
    kind([68, 68, 98], "GET /", &[200], |_, _| Some(Call::get("/"))),
    kind([10, 10, 10], "GET /health", &[200], |_, _| Some(Call::get("/health"))),
    kind([5, 5, 5], "GET /no-such-page", &[404], |_, _| Some(Call::get("/no-such-page"))),

    kind([100, 20, 100], "GET /api/items", &[200], |_, _| Some(Call::get("/api/items"))),
    kind([140, 40, 140], "GET /api/items/{id}", &[200], |_, rng| Some(Call::get(format!("/api/items/{}", rng.u8(1..=100))))),
    kind([40, 40, 40], "POST /api/items", &[201], |_, _| Some(Call::post("/api/items", &json!({ "name": "load", "price": 1.5 })))).then(Then::KeepItem),
    kind([20, 20, 20], "PUT own item", &[200], |world, rng| Some(world.item(Method::PUT, rng)?.json(&json!({ "name": "load", "price": 2.5 })))),
    kind([20, 20, 20], "PATCH own item", &[200], |world, rng| Some(world.item(Method::PATCH, rng)?.json(&json!({ "price": 3.5 })))),
    kind([15, 15, 15], "DELETE own item", &[204], |world, _| world.delete_item()),
    kind([15, 15, 15], "GET /api/items/500", &[404], |_, _| Some(Call::get("/api/items/500"))),
    kind([10, 10, 10], "GET /api/items/-1", &[400], |_, _| Some(Call::get("/api/items/-1"))),
    kind([10, 10, 10], "POST /api/items (blank)", &[422], |_, _| Some(Call::post("/api/items", &json!({ "name": " " })))),
    kind([40, 40, 40], "POST /api/orders", &[201], |_, rng| Some(Call::post("/api/orders", &json!({ "item_id": rng.u8(1..=100), "quantity": 2 })))).then(Then::KeepOrder),
    kind([40, 40, 40], "GET own order", &[200], |world, _| world.order()),
    kind([10, 10, 10], "DELETE own order", &[204], |world, _| world.delete_order()),
    kind([10, 10, 10], "GET /api/orders/999999999", &[404], |_, _| Some(Call::get("/api/orders/999999999"))),

    kind([100, 29, 100], "GET /api/articles", &[200], |_, _| Some(Call::get("/api/articles"))),
    kind([20, 20, 20], "GET /api/articles?tag=", &[200], |_, _| Some(Call::get("/api/articles?tag=load"))),
    kind([60, 60, 60], "GET own article", &[200], |world, _| world.as_reader(Call::get(world.article("")?))),
    kind([40, 40, 40], "GET /api/tags", &[200], |_, _| Some(Call::get("/api/tags"))),
    kind([40, 40, 40], "GET /api/user", &[200], |world, _| world.as_reader(Call::get("/api/user"))),
    kind([8, 8, 8], "GET /api/user (no token)", &[401], |_, _| Some(Call::get("/api/user"))),
    kind([20, 20, 20], "favorite, unfavorite", &[200], |world, _| world.favorite()),
    kind([10, 10, 10], "POST comment", &[201], |world, _| world.as_reader(Call::post(world.article("/comments")?, &json!({ "comment": { "body": "load" } })))),
    kind([20, 20, 20], "GET comments", &[200], |world, _| Some(Call::get(world.article("/comments")?))),

    kind([30, 30, 30], "GET /posts", &[200], |world, _| world.as_blogger(Call::get("/posts"))),
    kind([10, 10, 10], "vote on, off", &[201], |world, _| world.vote()).then(Then::EndVote),

    kind([25, 25, 25], "checkout headphones", &[200], |_, _| Some(checkout("headphones", 1))),
    kind([4, 4, 4], "checkout vinyl", &[200, 400], |_, _| Some(checkout("vinyl", 1))), // 25 are in stock
    kind([1, 1, 0], "checkout smartphones", &[200], |_, _| Some(checkout("smartphone", 3))), // slow
    kind([3, 10, 0], "checkout laptops", &[200, 500], |_, _| Some(checkout("laptop", 2))), // 60 % fail

    kind([20, 20, 20], "GET /cache/{key}", &[200], |_, rng| Some(Call::get(format!("/cache/k{}", rng.u8(1..=20))))),
    kind([8, 8, 8], "GET /api/bad-request", &[400], |_, _| Some(Call::get("/api/bad-request"))),
    kind([2, 2, 2], "GET /simulate/heavy-task", &[200, 503], |_, _| Some(Call::get("/simulate/heavy-task"))),
    kind([4, 92, 0], "GET /api/server-error", &[500], |_, _| Some(Call::get("/api/server-error"))),
    kind([3, 48, 0], "GET /api/exception", &[500], |_, _| Some(Call::get("/api/exception"))),
    kind([4, 4, 0], "GET /simulate/error", &[200, 500], |_, _| Some(Call::get("/simulate/error"))),
    kind([2, 2, 0], "GET /simulate/latency", &[200], |_, _| Some(Call::get("/simulate/latency"))),
    kind([2, 80, 0], "GET /api/slow", &[200], |_, _| Some(Call::get("/api/slow"))),
    kind([1, 34, 0], "GET /api/very-slow", &[200], |_, _| Some(Call::get("/api/very-slow"))),
    kind([2, 2, 0], "GET /api/cpu", &[200, 503], |_, _| Some(Call::get("/api/cpu"))),
    kind([8, 8, 0], "GET /api/random", &[200, 400, 500], |_, _| Some(Call::get("/api/random"))),
];

#[cfg(test)]
mod tests {
    use super::*;

    const MIXES: [Mix; 3] = [Mix::Default, Mix::Incident, Mix::Healthy];

    /// Of 1,000 requests, by what each kind is known to do.
    fn share(mix: Mix, of: impl Fn(&str) -> f64) -> f64 {
        KINDS.iter().map(|kind| f64::from(mix.weight(kind)) * of(kind.name)).sum()
    }

    fn errors(name: &str) -> f64 {
        match name {
            "GET /api/server-error" | "GET /api/exception" => 1.0,
            "GET /simulate/error" => 0.7,
            "checkout laptops" => 0.6,
            "GET /api/random" => 0.15,
            _ => 0.0,
        }
    }

    fn over_a_second(name: &str) -> f64 {
        match name {
            "GET /api/very-slow" | "checkout smartphones" => 1.0,
            "GET /api/slow" => 0.8,
            "GET /simulate/latency" => 0.53,
            "GET /api/random" => 0.1,
            _ => 0.0,
        }
    }

    #[test]
    fn weights_add_up_to_a_thousand() {
        for mix in MIXES {
            assert_eq!(KINDS.iter().map(|kind| mix.weight(kind)).sum::<u32>(), 1_000, "{mix:?}");
        }
    }

    #[test]
    fn the_mixes_have_the_errors_and_delays_that_they_promise() {
        let shares = |mix| (share(mix, errors) / 10.0, share(mix, over_a_second) / 10.0);
        let (failed, slow) = shares(Mix::Default);
        assert!((1.2..1.4).contains(&failed) && (0.5..0.7).contains(&slow), "{failed} {slow}");
        let (failed, slow) = shares(Mix::Incident);
        assert!((14.5..15.5).contains(&failed) && (9.5..10.5).contains(&slow), "{failed} {slow}");
        assert!(share(Mix::Healthy, errors) + share(Mix::Healthy, over_a_second) < 1e-9);
        for kind in KINDS.iter().filter(|kind| Mix::Healthy.weight(kind) > 0) {
            let is_calm = kind.expected.iter().all(|status| *status < 500 || *status == 503);
            assert!(is_calm, "{}", kind.name);
        }
    }

    #[test]
    fn every_kind_has_a_name_and_statuses_of_its_own() {
        for (at, kind) in KINDS.iter().enumerate() {
            assert!(!kind.expected.is_empty(), "{}", kind.name);
            assert!(KINDS[..at].iter().all(|other| other.name != kind.name), "{}", kind.name);
        }
    }

    #[test]
    fn a_seed_repeats_the_same_requests() {
        let draw = |seed| {
            let mut rng = Rng::with_seed(seed);
            let draws = (0..50).map(|_| Mix::Default.draw(&World::default(), &mut rng));
            draws.map(|(kind, call)| (kind, call.name())).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    /// An empty world: what it needs was refused.
    #[test]
    fn a_kind_whose_object_is_missing_is_never_drawn() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..2_000 {
            let (at, _) = Mix::Default.draw(&World::default(), &mut rng);
            let name = KINDS[at].name;
            assert!(!name.contains("own ") && !name.contains("vote"), "{name}");
        }
    }
}
