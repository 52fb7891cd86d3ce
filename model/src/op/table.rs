//! The table of operations: a row each, without a wildcard.

use crate::machine::Machine;
use crate::machine::program::Op;
use crate::op::*;
use crate::words::{Duty, Fields, Found};

/// The rows: an operation's name, whether it has arguments, a number or nothing, and the type in whose file it is.
macro_rules! rows {
    ($then:ident $given:tt) => {
        $then! { $given []
            EnableCap: arguments EnableCap;
            CreateVcpu: unit create_vcpu::CreateVcpu;
            SetMemoryRegion: arguments SetMemoryRegion;
            GetDirtyLog: arguments GetDirtyLog;
            ClearDirtyLog: arguments ClearDirtyLog;
            ResetRings: arguments ResetRings;
            PreFault: arguments PreFault;
            KernelWrite: arguments KernelWrite;
            HostAge: arguments HostAge;
            Harvest: arguments Harvest;
            Publish: unit publish::Publish;
            PublishSlot: arguments PublishSlot;
            Copy: unit copy::CopyPending;
            CopyAll: unit copy::CopyAll;
            CopyList: arguments CopyList;
            TakeAll: unit copy::TakeAll;
            TakeAlways: unit pending::TakeAlways;
            Forget: unit pending::Forget;
            Kick: arguments Kick;
            WaitKicked: unit kick::WaitKicked;
            WaitStopped: unit wait::WaitStopped;
            WaitRunning: unit wait::WaitRunning;
            JoinThread: number wait::JoinThread;
            Resume: unit wait::Resume;
            WaitRingFull: unit ring_full::WaitRingFull;
            AckRingFull: unit ring_full::AckRingFull;
            UserWrite: arguments UserWrite;
            MarkOwn: arguments MarkOwn;
            CollectOwnLog: unit own_log::CollectOwnLog;
            ResetOwnLog: unit own_log::ResetOwnLog;
            DeviceStart: number devices::DeviceStart;
            DeviceStop: number devices::DeviceStop;
            DeviceDrain: number devices::DeviceDrain;
            DeviceSync: arguments DeviceSync;
            DropFree: arguments DropFree;
            EndFree: arguments EndFree;
            Lock: number locks::Lock;
            Unlock: number locks::Unlock;
            Signal: number signals::Signal;
            WaitSignal: number signals::WaitSignal;
            MayFail: unit sync_file::MayFail;
            OnError: arguments OnError;
            Again: arguments Again;
            PassUnless: arguments PassUnless;
            SendPage: arguments SendPage;
            Proceed: arguments Proceed;
            Yield: unit code::Yield;
            Panic: unit code::Panic;
            Leave: unit code::Leave;
            Cancel: unit cancel::Cancel;
            PutBack: unit cancel::PutBack;
            Discard: unit cancel::Discard;
            NewDestination: unit cancel::NewDestination;
            Checkpoint: unit finish::Checkpoint;
            Finish: arguments Finish;
        }
    };
}

/// Does the same with whatever operation it is.
macro_rules! dispatch {
    ($op:expr, $it:ident => $body:expr) => {
        rows!(arms($op, $it, $body))
    };
}

macro_rules! arms {
    (($op:expr, $it:ident, $body:expr) [$($arms:tt)*]) => {
        match $op { $($arms)* }
    };
    ($given:tt $arms:tt $name:ident: $kind:ident $type:path; $($rest:tt)*) => {
        arm!($kind $given $arms $name $type; $($rest)*)
    };
}

macro_rules! arm {
    (arguments ($op:expr, $it:ident, $body:expr) [$($arms:tt)*] $name:ident $type:path; $($rest:tt)*) => {
        arms! { ($op, $it, $body) [$($arms)* Op::$name($it) => $body,] $($rest)* }
    };
    (number ($op:expr, $it:ident, $body:expr) [$($arms:tt)*] $name:ident $type:path; $($rest:tt)*) => {
        arms! { ($op, $it, $body) [$($arms)* Op::$name(number) => { let $it = &$type(*number); $body }] $($rest)* }
    };
    (unit ($op:expr, $it:ident, $body:expr) [$($arms:tt)*] $name:ident $type:path; $($rest:tt)*) => {
        arms! { ($op, $it, $body) [$($arms)* Op::$name => { let $it = &$type; $body }] $($rest)* }
    };
}

macro_rules! steps {
    (() [] $($name:ident: $kind:ident $type:path;)*) => {
        &[$(<$type as Operation>::STEPS,)*]
    };
}

/// The names of all operations' steps.
pub(crate) const STEPS: &[&[Word]] = rows!(steps());

impl Op {
    /// What it does as a whole, for people; `{slot}`, `{page}`, `{vcpu}`, `{thread}`, `{device}` stand for what it names.
    #[must_use]
    pub fn says(&self) -> &'static str {
        dispatch!(self, op => Operation::says(op))
    }

    /// What it means as a whole, for those who look ahead.
    #[must_use]
    pub fn facts(&self, machine: &Machine) -> Facts {
        dispatch!(self, op => Operation::facts(op, machine))
    }

    /// What its steps read and what they write, all together.
    #[must_use]
    pub fn touches(&self, machine: &Machine) -> (Fields, Fields) {
        fn stages<T: Operation>(_: &T) -> u8 {
            T::STAGES
        }
        let stages = dispatch!(self, op => stages(op));
        (0..stages).fold((Fields::NONE, Fields::NONE), |(reads, writes), stage| {
            let row = self.row(machine, stage);
            (reads | row.reads, writes | row.writes)
        })
    }

    /// What its step at a stage reads, writes and reaches. A mutation may read or write anything.
    #[must_use]
    pub fn row(&self, machine: &Machine, stage: u8) -> Row {
        dispatch!(self, op => Operation::row(op, machine, stage))
    }

    /// The names of its steps, by stage; after those, steps that a choice leads to.
    #[must_use]
    pub fn steps(&self) -> &'static [Word] {
        fn of<T: Operation>(_: &T) -> &'static [Word] {
            T::STEPS
        }
        dispatch!(self, op => of(op))
    }

    pub(crate) fn word<L: Layout>(&self, at: View<'_, L>, choice: Choice) -> Word {
        dispatch!(self, op => Operation::word(op, at, choice))
    }

    /// What a thread that stands before its step at a stage is in the middle of: its row's, asked after every step of a thread.
    #[inline(always)]
    pub(crate) fn duty(&self, machine: &Machine, stage: u8) -> Duty {
        dispatch!(self, op => Operation::row(op, machine, stage).duty)
    }

    pub(crate) fn subject<L: Layout>(&self, at: View<'_, L>) -> Option<Frame> {
        dispatch!(self, op => Operation::subject(op, at))
    }

    /// What keeps a thread from its next step.
    pub(crate) fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        dispatch!(self, op => Operation::blocked(op, at))
    }

    #[inline(always)]
    pub(crate) fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>) {
        dispatch!(self, op => Operation::choices(op, at, found));
    }

    #[inline(always)]
    pub(crate) fn step<L: Layout>(&self, act: Act<'_, L>, choice: Choice) -> Effect {
        dispatch!(self, op => Operation::step(op, act, choice))
    }

    pub(crate) fn alone<L: Layout>(&self, at: View<'_, L>) -> Option<(Rule, Choice)> {
        dispatch!(self, op => Operation::alone(op, at))
    }
}
