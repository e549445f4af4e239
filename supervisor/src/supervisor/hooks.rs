//! Who is told of what happens: the hooks of the application, then the hook program.

use std::time::Instant;

use super::Supervisor;
use crate::hooks::{self, Call, Trouble};
use crate::lifecycle::cause::Status;
use crate::lifecycle::event::{Notice, Report, SlotNumber};
use crate::process::Reaped;
use crate::{Ended, Hooks, WorkerExit};

impl Supervisor<'_> {
    /// Calls a hook of the application, and says what was wrong with it.
    pub(super) fn call_hook(&mut self, name: &str, hook: impl FnOnce(&mut (dyn Hooks + 'static))) {
        let Some(hooks) = self.children.hooks() else { return };
        let why = match hooks::call(hooks, hook) {
            None => return,
            Some(Trouble::Panicked) => "it has panicked".to_owned(),
            Some(Trouble::Slow(took)) => {
                format!("it took {} ms of the supervisor's time", took.as_millis())
            }
        };
        let voice = self.voice();
        self.events.hook_failed(name, &why, voice);
    }

    /// A worker was buried.
    pub(super) fn tell_hooks_of_exit(&mut self, slot: SlotNumber, report: &Report, reaped: Reaped) {
        let status = match reaped.status {
            Status::Exited(code) => Ended::Code(code),
            Status::Signaled { signal, .. } => Ended::Signal(signal),
        };
        let exit = WorkerExit {
            slot: slot.0,
            pid: reaped.pid,
            generation: report.generation,
            cause: report.cause.as_str(),
            status,
            max_rss_bytes: reaped.max_rss_bytes,
            cpu_time: reaped.cpu_time,
        };
        self.call_hook("child_exit", |hooks| hooks.child_exit(&exit));
        self.hook_program.call(Call {
            event: "child_exit",
            worker: Some(slot.0),
            pid: Some(reaped.pid),
            cause: Some(exit.cause),
            status: Some(match status {
                Ended::Code(code) => code.to_string(),
                Ended::Signal(signal) => format!("signal {signal}"),
            }),
            generation: Some(report.generation),
        });
    }

    pub(super) fn tell_hooks(&mut self, notice: &Notice) {
        match notice {
            Notice::Started { .. } => self.call_hook("when_ready", Hooks::when_ready),
            Notice::WorkerReady { slot, .. } => {
                self.call_hook("worker_ready", |hooks| hooks.worker_ready(slot.0));
            }
            Notice::Reloading { .. } => self.call_hook("on_reload", Hooks::on_reload),
            Notice::WorkersChanged { old, new, .. } => {
                self.call_hook("workers_changed", |hooks| hooks.workers_changed(*old, *new));
            }
            Notice::Stopped { .. } => self.call_hook("on_exit", Hooks::on_exit),
            _ => {}
        }
        self.tell_program(notice);
        self.run_hooks();
    }

    pub(super) fn run_hooks(&mut self) {
        let voice = self.voice();
        for (event, why) in self.hook_program.turn(Instant::now()) {
            self.events.hook_failed(event, &why, voice);
        }
    }

    fn tell_program(&mut self, notice: &Notice) {
        let event = |event| Call { event, ..Call::default() };
        self.hook_program.call(match notice {
            Notice::Started { .. } => event("when_ready"),
            Notice::WorkerReady { slot, generation, .. } => Call {
                worker: Some(slot.0),
                pid: self.workers.get(slot).map(|worker| worker.process.pid()),
                generation: Some(*generation),
                ..event("worker_ready")
            },
            Notice::Reloading { generation, .. } => {
                Call { generation: Some(*generation), ..event("on_reload") }
            }
            Notice::WorkersChanged { new, .. } => {
                Call { status: Some(new.to_string()), ..event("workers_changed") }
            }
            Notice::Stopped { .. } => event("on_exit"),
            _ => return,
        });
    }
}
