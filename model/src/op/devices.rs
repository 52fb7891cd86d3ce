//! A device is started, stopped, drained, and its log is collected.

use super::{Act, DeviceSync, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::loud;
use crate::words::{Effect, Facts, Fields, Frame, Names, Row, Waits, Word};

/// Starts a device, with its log.
pub(crate) struct DeviceStart(pub(crate) u8);

impl Single for DeviceStart {
    const STEP: Word = loud("start-device", "starts a device");

    fn says(&self) -> &'static str {
        "starts {device}"
    }
    fn facts(&self) -> Facts {
        named(self.0)
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.changes(Fields::DEVICES)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let device = &mut act.state.devices[usize::from(self.0)];
        device.runs = true;
        device.started = true;
        act.next_op()
    }
}

/// Lets a device begin no new transfer.
pub(crate) struct DeviceStop(pub(crate) u8);

impl Single for DeviceStop {
    const STEP: Word = loud("stop-device", "stops a device");

    fn says(&self) -> &'static str {
        "stops {device}"
    }
    fn facts(&self) -> Facts {
        named(self.0)
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.changes(Fields::DEVICES)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.devices[usize::from(self.0)].runs = false;
        act.next_op()
    }
}

/// Waits until a device has nothing in flight.
pub(crate) struct DeviceDrain(pub(crate) u8);

impl Single for DeviceDrain {
    const STEP: Word = loud("device-drained", "sees a device drained");

    fn says(&self) -> &'static str {
        "waits for {device}"
    }
    fn facts(&self) -> Facts {
        named(self.0)
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.reads(Fields::DEVICES)
    }
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        let device = &at.state.devices[usize::from(self.0)];
        Waits::Device(self.0).unless(device.in_flight.is_empty() && device.unlogged.is_empty())
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.next_op()
    }
}

impl Single for DeviceSync {
    const STEP: Word = loud("sync-device-log", "collects a device's log");

    fn says(&self) -> &'static str {
        "collects the log of {device}"
    }
    fn facts(&self) -> Facts {
        named(self.device)
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.changes(Fields::DEVICES).writes(self.into.fields())
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, act: Act<'_, L>) -> Effect {
        self.collect(act, Some)
    }
}

impl DeviceSync {
    /// The log is taken; `seen` tells which frame user space takes a logged one for, if it sees it at all.
    pub(crate) fn collect<L: Layout>(
        &self,
        mut act: Act<'_, L>,
        seen: impl Fn(Frame) -> Option<Frame>,
    ) -> Effect {
        let log = core::mem::take(&mut act.state.devices[usize::from(self.device)].log);
        let machine = act.machine;
        if let Some(set) = act.collected(self.into) {
            for frame in log.iter().filter_map(seen) {
                set.insert(machine.host_page(frame));
            }
        }
        act.leave(Ok(0))
    }
}

fn named(device: u8) -> Facts {
    Facts {
        names: Names::Device(device),
        ..Facts::NOTHING
    }
}
