//! The start of a program that runs in the place of another: everything is there, and is taken as it is (S53).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Instant;

use super::upgrade::{Before, Programs, admin_bind_of};
use super::{Image, Observer, Supervisor, Worker, own_process};
use crate::channel::Line;
use crate::control::Control;
use crate::descriptors::copy_descriptor;
use crate::error::Error;
use crate::events::{Events, Stderr};
use crate::lifecycle::Lifecycle;
use crate::lifecycle::event::SlotNumber;
use crate::lifecycle::failure::Failure;
use crate::listeners::Kept;
use crate::pidfile::Pidfile;
use crate::process::{Process, Title};
use crate::signals::Signals;
use crate::slots::Slots;
use crate::upgrade::state::State;
use crate::upgrade::{retreat, unseal};
use crate::{Children, Exit, Settings};

/// Goes on with a running server. One that cannot brings the program before it back, while that is possible.
pub(super) fn run(
    settings: &Settings,
    children: &mut dyn Children,
    (state, back): (RawFd, Option<RawFd>),
    failure: Option<&str>,
) -> Result<Exit, Error> {
    let home =
        Programs::home().map_err(|error| failed("keep the folder it was started in", error))?;
    let again = home.try_clone().map_err(|error| failed("keep the folder", error))?;
    let supervisor = take_over(settings, children, (state, back), (failure, home));
    supervisor.map(Supervisor::run).inspect_err(|error| {
        // What is relative on the command line means the folder in which the server was started.
        let _was_there = nix::unistd::fchdir(&again);
        retreat(&settings.image, "takeover", &error.to_string());
    })
}

fn take_over<'a>(
    settings: &Settings,
    children: &'a mut dyn Children,
    (state_fd, back): (RawFd, Option<RawFd>),
    (failure, home): (Option<&str>, OwnedFd),
) -> Result<Supervisor<'a>, Error> {
    own_process::count_threads()?;
    let bytes = unseal(state_fd).map_err(|error| failed("read the state", error))?;
    let mut state = State::parse(&bytes).map_err(|why| failed("read the state", why))?;
    let mut life =
        state.life.take().ok_or_else(|| failed("read the state", "it is a rehearsal's"))?;
    if let Some(text) = failure {
        life.failure = Some(understand(text));
    }
    let title = Title::claim();
    let signals = Signals::take_over(state.is_nohup, state.had_terminal)
        .map_err(|errno| Error::System { attempt: "take over signals", errno })?;
    own_process::raise_descriptor_limit();
    own_process::settle_in(settings)?;
    let lock = copy_descriptor(state.lock).map_err(|error| failed("take the lock", error))?;
    let slots = Slots::adopt(&state.run_dir, lock, settings)?;
    let (workers, observer) = adopt_children(&state)?;
    let now = Instant::now();
    let socket = |error| failed("take a socket", error);
    let control = state.control.as_ref().map(|control| Control::adopt(control, now));
    let control = control.transpose().map_err(socket)?;
    let pidfile = state.pidfile.as_ref().map(Pidfile::adopt).transpose().map_err(socket)?;
    let listeners = state.listeners.iter().map(Kept::adopt).collect::<Result<Vec<_>, _>>();
    let (mut listeners, admin) =
        (listeners.map_err(socket)?, state.admin.as_ref().map(Kept::adopt));
    let mut admin = admin.transpose().map_err(socket)?;
    let image = back.map(copy_descriptor).transpose();
    let image = image.map_err(|error| failed("keep the program before", error))?;
    let life = Lifecycle::adopt(settings.limits(), life, own_process::seed(), now);
    // From here on nothing can fail, and this image is the one that answers for what it holds.
    listeners.iter_mut().chain(&mut admin).for_each(Kept::take_charge);
    let given = state.descriptors().into_iter().chain([state_fd]).chain(back);
    given.for_each(close);
    let events = Events::new(slots.own(), Stderr::open(), settings);
    let mut programs = Programs::of(settings, home);
    programs.own.path = state.to.path;
    match image {
        Some(image) => {
            programs.before = Some(Before { program: state.from, memento: state.memento, image });
        }
        None => programs.next = Some(state.from),
    }
    Ok(Supervisor {
        settings: settings.clone(),
        admin_bind: admin_bind_of(&state.admin_bind),
        life,
        listeners,
        admin,
        workers,
        observer,
        pidfile,
        last_reload: state.last_reload,
        last_upgrade: state.last_upgrade,
        is_adopted: true,
        ..Supervisor::new(settings, children, (signals, slots, events), (title, control), programs)
    })
}

type Found = (BTreeMap<SlotNumber, Worker>, Option<Observer>);

/// The children of the image before this one, which an exec has left ours.
fn adopt_children(state: &State) -> Result<Found, Error> {
    let mut workers = BTreeMap::new();
    for worker in &state.workers {
        let process =
            Process::adopt(worker.child).map_err(|errno| failed("find a worker", errno))?;
        let line = worker.channel.map(copy_descriptor).transpose();
        let line = line.map_err(|error| failed("take the channel of a worker", error))?;
        let line = line.map(Line::adopt);
        workers.insert(SlotNumber(worker.slot), Worker { process, image: Image::Other, line });
    }
    let observer = state.observer.as_ref().map(|observer| {
        let process =
            Process::adopt(observer.child).map_err(|errno| failed("find the observer", errno))?;
        let lifeline: OwnedFd = copy_descriptor(observer.lifeline)
            .map_err(|error| failed("take the lifeline of the observer", error))?;
        let now = Instant::now();
        let born = now.checked_sub(observer.age).unwrap_or(now);
        Ok::<_, Error>(Observer { process, lifeline, born })
    });
    Ok((workers, observer.transpose()?))
}

/// What [`retreat`] has said.
fn understand(text: &str) -> Failure {
    let (stage, why) = text.split_once(": ").unwrap_or((text, ""));
    let why = Some(why.to_owned()).filter(|why| !why.is_empty());
    Failure { stage: stage.to_owned(), text: why, exit: Exit::Usage }
}

/// A copy was taken of it.
fn close(number: RawFd) {
    let _was_open = nix::unistd::close(number);
}

fn failed(attempt: &'static str, why: impl Display) -> Error {
    Error::Takeover { attempt, why: why.to_string() }
}
