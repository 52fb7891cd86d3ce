//! Operations in words for people: the model's rows say what one does, the scenario how what it names is called.

use dirtysim_model::machine::{Machine, Op};
use dirtysim_model::words::Names;

use crate::scenario::Scenario;

fn slot_name(machine: &Machine, number: u32) -> String {
    machine
        .slots
        .iter()
        .find(|slot| slot.number() == number)
        .map_or_else(|| format!("slot {number}"), |slot| slot.name.clone())
}

/// An operation of the VMM, in words.
pub fn of_op(scenario: &Scenario, op: &Op) -> String {
    let machine = &scenario.machine;
    let says = op.says();
    match op.facts(machine).names {
        Names::Slot(number, _) => says.replace("{slot}", &slot_name(machine, number)),
        Names::Template(template) => {
            let slot = machine.slots.get(usize::from(template));
            says.replace("{slot}", slot.map_or("a slot", |slot| slot.name.as_str()))
        }
        Names::Frame(frame) => says.replace("{page}", &scenario.frame_name(frame)),
        Names::Vcpu(vcpu) => says.replace("{vcpu}", &format!("vcpu{vcpu}")),
        Names::Thread(thread) => says.replace("{thread}", &format!("thread{thread}")),
        Names::Device(device) => says.replace("{device}", &format!("device{device}")),
        Names::Signal(signal) => {
            let name = scenario.names.signals.get(usize::from(signal));
            says.replace("{signal}", name.map_or("a signal", String::as_str))
        }
        Names::Nothing | Names::Frames(_) | Names::Anything => says.to_owned(),
    }
}

/// `text` with the page's name in its place.
pub(super) fn with_page(text: &str, page: Option<&str>) -> String {
    text.replace("{page}", page.unwrap_or("a page"))
}
