//! What a run has made on the server: users, an article, a post, items and orders. Its requests are about these, and at its
//! end what people would see of them is deleted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use fastrand::Rng;
use hyper::Method;
use serde_json::{Value, json};

use crate::load::http::{Call, Http};

/// Items that are changed and never deleted while the run goes on.
const ITEMS: usize = 5;
/// So many younger ones are spared by a delete: a request about them may be under way.
const SPARED: usize = 4;
const PASSWORD: &str = "correct horse 1";

/// The objects of a run. What could not be made is missing, and so are the requests about it.
#[derive(Default)]
pub(crate) struct World {
    name: String,
    conduit_token: RefCell<Option<String>>,
    blog_token: RefCell<Option<String>>,
    article: Option<String>,
    post: Option<i64>,
    items: Vec<i64>,
    new_items: RefCell<VecDeque<i64>>,
    orders: RefCell<VecDeque<i64>>,
    /// Whether the next of these adds or takes away.
    favorite: Cell<bool>,
    vote: Cell<bool>,
    /// A second vote may not overtake the first.
    is_voting: Cell<bool>,
}

/// What an answer changes.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Then {
    Nothing,
    KeepItem,
    KeepOrder,
    EndVote,
}

impl World {
    /// Makes what a run needs; says what could not be made.
    pub(crate) async fn prepare(http: &Http) -> (Self, Vec<String>) {
        let name = format!("load-{:012x}", Rng::new().u64(..) >> 16);
        let mut world =
            Self { name, favorite: Cell::new(true), vote: Cell::new(true), ..Self::default() };
        let mut maker = Maker { http, refusals: Vec::new() };
        world.register(&mut maker).await;
        world.log_in(&mut maker).await;
        let token = world.conduit_token.borrow().clone();
        if let Some(token) = token {
            let body = json!({ "article": {
                "title": world.name, "description": "made by saola load", "body": "text", "tagList": ["load"],
            } });
            let made = maker.make(Call::post("/api/articles", &body).with(&token)).await;
            world.article = made.and_then(|made| text(&made["article"]["slug"]));
        }
        let token = world.blog_token.borrow().clone();
        if let Some(token) = token {
            let body = json!({ "title": world.name, "content": "made by saola load" });
            let made = maker.make(Call::post("/posts", &body).with(&token)).await;
            world.post = made.and_then(|made| made["id"].as_i64());
        }
        for number in 1..=ITEMS {
            let body = json!({ "name": format!("{} {number}", world.name), "price": 1.5 });
            let made = maker.make(Call::post("/api/items", &body)).await;
            world.items.extend(made.and_then(|made| made["id"].as_i64()));
        }
        (world, maker.refusals)
    }

    /// New tokens, before the old ones expire.
    pub(crate) async fn renew(self: Rc<Self>, http: Rc<Http>) {
        self.log_in(&mut Maker { http: &http, refusals: Vec::new() }).await;
    }

    /// Deletes the article, the post and every item.
    pub(crate) async fn clean(&self, http: &Http) {
        let mut calls: Vec<Call> = Vec::new();
        let delete = |path: String| Call::new(Method::DELETE, path);
        if let (Some(slug), Some(token)) = (&self.article, &*self.conduit_token.borrow()) {
            calls.push(delete(format!("/api/articles/{slug}")).with(token));
        }
        if let (Some(id), Some(token)) = (self.post, &*self.blog_token.borrow()) {
            calls.push(delete(format!("/posts/{id}")).with(token));
        }
        let new_items = self.new_items.take();
        calls.extend(
            self.items.iter().chain(&new_items).map(|id| delete(format!("/api/items/{id}"))),
        );
        for call in calls {
            // Whatever stays is a row too many, and no failure of the run.
            let _ = http.send(call).await;
        }
    }

    /// Takes in the answer of a request, or that there was none.
    pub(crate) fn learn(&self, then: Then, answer: Option<&(u16, Bytes)>) {
        let id = |key: &str| {
            let (_, body) = answer.filter(|(status, _)| *status == 201)?;
            serde_json::from_slice::<Value>(body).ok()?[key].as_i64()
        };
        match then {
            Then::Nothing => (),
            Then::KeepItem => self.new_items.borrow_mut().extend(id("id")),
            Then::KeepOrder => self.orders.borrow_mut().extend(id("order_id")),
            Then::EndVote => self.is_voting.set(false),
        }
    }

    // ---- requests about its objects; none when there is no such object

    pub(crate) fn as_reader(&self, call: Call) -> Option<Call> {
        Some(call.with(self.conduit_token.borrow().as_deref()?))
    }

    pub(crate) fn as_blogger(&self, call: Call) -> Option<Call> {
        Some(call.with(self.blog_token.borrow().as_deref()?))
    }

    /// The path of the article, and what follows it.
    pub(crate) fn article(&self, rest: &str) -> Option<String> {
        Some(format!("/api/articles/{}{rest}", self.article.as_ref()?))
    }

    pub(crate) fn favorite(&self) -> Option<Call> {
        let path = self.article("/favorite")?;
        let method =
            if self.favorite.replace(!self.favorite.get()) { Method::POST } else { Method::DELETE };
        self.as_reader(Call::new(method, path))
    }

    pub(crate) fn vote(&self) -> Option<Call> {
        let post = self.post?;
        if self.is_voting.replace(true) {
            return None;
        }
        let is_on = self.vote.replace(!self.vote.get());
        self.as_blogger(Call::post("/vote", &json!({ "post_id": post, "dir": u8::from(is_on) })))
    }

    pub(crate) fn item(&self, method: Method, rng: &mut Rng) -> Option<Call> {
        let id = rng.choice(&self.items)?;
        Some(Call::new(method, format!("/api/items/{id}")))
    }

    pub(crate) fn delete_item(&self) -> Option<Call> {
        let id = oldest(&self.new_items, 0)?;
        Some(Call::new(Method::DELETE, format!("/api/items/{id}")))
    }

    pub(crate) fn order(&self) -> Option<Call> {
        let id = *self.orders.borrow().back()?;
        Some(Call::get(format!("/api/orders/{id}")))
    }

    pub(crate) fn delete_order(&self) -> Option<Call> {
        let id = oldest(&self.orders, SPARED)?;
        Some(Call::new(Method::DELETE, format!("/api/orders/{id}")))
    }

    // ---- users

    async fn register(&self, maker: &mut Maker<'_>) {
        let (name, email) = (&self.name, self.email());
        let user = json!({ "user": { "username": name, "email": email, "password": PASSWORD } });
        maker.make(Call::post("/api/users", &user)).await;
        maker.make(Call::post("/users", &json!({ "email": email, "password": PASSWORD }))).await;
    }

    async fn log_in(&self, maker: &mut Maker<'_>) {
        let user = json!({ "user": { "email": self.email(), "password": PASSWORD } });
        let answer = maker.make(Call::post("/api/users/login", &user)).await;
        if let Some(token) = answer.and_then(|answer| text(&answer["user"]["token"])) {
            self.conduit_token.replace(Some(token));
        }
        let form = format!("username={}&password={}", self.email(), PASSWORD.replace(' ', "+"));
        let answer = maker.make(Call::new(Method::POST, "/login").form(form)).await;
        if let Some(token) = answer.and_then(|answer| text(&answer["access_token"])) {
            self.blog_token.replace(Some(token));
        }
    }

    fn email(&self) -> String {
        format!("{}@example.com", self.name)
    }
}

/// Makes objects, and keeps what was refused.
struct Maker<'a> {
    http: &'a Http,
    refusals: Vec<String>,
}

impl Maker<'_> {
    async fn make(&mut self, call: Call) -> Option<Value> {
        let name = call.name();
        let refusal = match self.http.send(call).await {
            Ok((200 | 201, body)) => return serde_json::from_slice(&body).ok(),
            Ok((status, _)) => format!("{name} answered {status}"),
            Err(why) => format!("{name} failed: {why}"),
        };
        self.refusals.push(refusal);
        None
    }
}

fn oldest(ids: &RefCell<VecDeque<i64>>, spared: usize) -> Option<i64> {
    let mut ids = ids.borrow_mut();
    if ids.len() > spared { ids.pop_front() } else { None }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(ToOwned::to_owned)
}
