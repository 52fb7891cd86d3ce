//! A scenario with any number in place of each number that it may have any of.

use dirtysim_model::machine::Machine;
use dirtysim_model::op::{self, Op};
use dirtysim_model::reduce::independence::least_reserve;
use serde_json::{Map, Value, json};

use super::Scenario;

/// The keys of `[writers]`' tables that are budgets.
const BUDGETS: [&str; 5] = ["stores", "loads", "updates", "transfers", "send_failures"];

/// The keys of `[writers]` whose tables may be any.
const TABLES: [&str; 4] = ["its_save", "pending_save", "its_restore", "kernel_write"];

/// A scenario with any number in place of each number.
#[derive(Debug, Clone)]
pub struct Widened {
    /// The scenario.
    pub scenario: Scenario,
    /// Why it is not about any number of pages, where it is not.
    pub pages_stay: Option<String>,
}

impl Scenario {
    /// The same with any number of stores, loads, updates, transfers, failures and rounds, and of pages where that is argued; a round that
    /// is written out becomes one that is gone round any number of times. None where nothing of it has a number: the number of pages that
    /// stays as it is is one.
    #[must_use]
    pub fn widened(&self) -> Option<Widened> {
        let mut source = self.source.clone();
        if let Some(writers) = source.get_mut("writers") {
            budgets(writers);
        }
        if let Some(protocol) = source.get_mut("protocol") {
            rounds(protocol);
        }
        let mut paged = source.clone();
        pages(self, &mut paged);
        let paged = if clears_whole_words(&self.machine) {
            Self::from_json(&self.file, &paged).map_err(|error| {
                let why = error.problem.trim_start_matches("any number of pages: ");
                why.to_owned()
            })
        } else {
            Err("a CLEAR is given no whole words of a memslot".to_owned())
        };
        let (wide, pages_stay) = match paged {
            Ok(wide) => (wide, None),
            Err(why) => (Self::from_json(&self.file, &source).ok()?, Some(why)),
        };
        (wide.source != self.source || pages_stay.is_some()).then_some(Widened {
            scenario: wide,
            pages_stay,
        })
    }

    /// The same with the smallest rings in which no entry is ever without a place: their reserve holds what may be pushed between two checks,
    /// and one entry more makes them soft-full. None where it has no smaller rings than its own.
    #[must_use]
    pub fn with_least_rings(&self) -> Option<Self> {
        let reserved = least_reserve(&self.machine);
        let entries = reserved.checked_add(1)?.checked_next_power_of_two()?;
        if entries >= self.ring_entries() {
            return None;
        }
        let mut source = self.source.clone();
        let ring = source.get_mut("machine")?.get_mut("ring")?;
        ring["entries"] = entries.into();
        ring["reserved"] = reserved.into();
        Self::from_json(&self.file, &source).ok()
    }
}

/// Every budget is any.
fn budgets(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let has_some = value.as_u64().is_some_and(|number| number > 0);
                if BUDGETS.contains(&key.as_str()) && has_some {
                    *value = "any".into();
                } else {
                    budgets(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(budgets),
        _ => {}
    }
}

/// Every `repeat` is any number of rounds.
fn rounds(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.contains_key("repeat")
                && let Some(steps) = map.remove("steps")
            {
                map.clear();
                map.insert("any_number".to_owned(), steps);
            }
            map.values_mut().for_each(rounds);
        }
        Value::Array(items) => items.iter_mut().for_each(rounds),
        _ => {}
    }
}

/// Any number of pages in place of the scenario's; those that a writer or a step names are of a kind, or any.
fn pages(scenario: &Scenario, source: &mut Value) {
    let names = Naming(&scenario.machine);
    let Some(machine) = source.get_mut("machine").and_then(Value::as_object_mut) else {
        return;
    };
    for key in ["word_bits", "reset_batch_pages"] {
        machine.shift_remove(key);
    }
    if machine.contains_key("pages") {
        machine.insert("pages".to_owned(), "any".into());
    }
    let slots = source.get_mut("slots").and_then(Value::as_array_mut);
    for slot in slots.into_iter().flatten() {
        if let Some(slot) = slot.as_object_mut() {
            slot.insert("pages".to_owned(), "any".into());
        }
    }
    let mut tables = Map::new();
    if let Some(protocol) = source.get_mut("protocol") {
        names.unname(protocol, &mut tables);
    }
    let Some(top) = source.as_object_mut() else {
        return;
    };
    let writers = top.entry("writers").or_insert_with(|| json!({}));
    let Some(writers) = writers.as_object_mut() else {
        return;
    };
    if let Some(vcpu) = writers.get_mut("vcpu").and_then(Value::as_object_mut) {
        vcpu.shift_remove("pages");
        let each = vcpu.get_mut("each").and_then(Value::as_array_mut);
        for one in each.into_iter().flatten() {
            if let Some(one) = one.as_object_mut() {
                one.shift_remove("pages");
            }
        }
    }
    for record in ["kernel_record", "emulated_stores"] {
        if let Some(page) = writers.get_mut(record).and_then(|of| of.get_mut("page")) {
            names.kind(page);
        }
    }
    if let Some(pages) = writers.get_mut("always_dirty") {
        names.kinds(pages);
    }
    let devices = writers.get_mut("devices").and_then(Value::as_array_mut);
    for device in devices.into_iter().flatten() {
        if let Some(pages) = device.get_mut("pages") {
            names.kinds(pages);
        }
    }
    for (key, value) in writers.iter_mut() {
        if TABLES.contains(&key.as_str())
            && let Some(tables) = value.get_mut("tables")
        {
            names.any(tables);
        }
    }
    writers.extend(tables);
    if writers.is_empty() {
        top.shift_remove("writers");
    }
}

/// What stands for the pages that a text names.
struct Naming<'a>(&'a Machine);

impl Naming<'_> {
    /// The memslot and the number of a page.
    fn page(&self, page: &Value) -> Option<(usize, u64)> {
        let mut slots = self.0.slots.iter();
        let number = match page.as_str().and_then(|word| word.split_once(':')) {
            Some((name, offset)) => {
                let slot = slots.position(|slot| slot.name == name)?;
                let before = self.0.slots[..slot].iter();
                let before: u64 = before.map(|slot| u64::from(slot.npages)).sum();
                before + offset.parse::<u64>().ok()?
            }
            None => page.as_u64()?,
        };
        let mut left = number;
        for (slot, template) in self.0.slots.iter().enumerate() {
            match left.checked_sub(u64::from(template.npages)) {
                Some(less) => left = less,
                None => return Some((slot, number)),
            }
        }
        None
    }

    /// In place of each page of a list, a kind of pages that it is of.
    fn kinds(&self, list: &mut Value) {
        let pages = list.as_array_mut().into_iter().flatten();
        pages.for_each(|page| self.kind(page));
    }

    /// In place of a page, a kind of pages that it is of.
    fn kind(&self, page: &mut Value) {
        if let Some((slot, number)) = self.page(page) {
            *page = self.of_slot(slot, format!("page-{number}"));
        }
    }

    /// In place of a list of pages, any: of the memslots of those in it.
    fn any(&self, list: &mut Value) {
        if self.0.slots.len() < 2 {
            *list = "any".into();
            return;
        }
        let pages = list.as_array().map_or(&[][..], Vec::as_slice);
        let mut any: Vec<Value> = Vec::new();
        for (slot, _) in pages.iter().filter_map(|page| self.page(page)) {
            let word = self.of_slot(slot, "any".to_owned());
            if !any.contains(&word) {
                any.push(word);
            }
        }
        *list = any.into();
    }

    fn of_slot(&self, slot: usize, word: String) -> Value {
        match &self.0.slots[..] {
            [_] => word.into(),
            slots => format!("{}:{word}", slots[slot].name).into(),
        }
    }

    /// Saves of tables, and other kernel writers, that name their pages come to write any; one that writes a page twice in a call does it
    /// again and again, each page once. Parts of a memslot come to be any.
    fn unname(&self, value: &mut Value, tables: &mut Map<String, Value>) {
        match value {
            Value::Object(map) => {
                let step = map.get("step").and_then(Value::as_str).unwrap_or_default();
                let writer = match step {
                    "its-save-tables" => Some("its_save"),
                    "save-pending-tables" => Some("pending_save"),
                    "its-restore-tables" => Some("its_restore"),
                    "kernel-write" => Some("kernel_write"),
                    _ => None,
                };
                let clears = step == "clear-dirty-log";
                let is_of_kinds = ["mark-queues", "drop-free", "end-free"].contains(&step);
                if is_of_kinds && let Some(pages) = map.get_mut("pages") {
                    self.kinds(pages);
                }
                if let Some(page) = map.get_mut("page") {
                    self.kind(page);
                }
                if clears && (map.contains_key("first") || map.contains_key("pages")) {
                    map.shift_remove("first");
                    map.insert("pages".to_owned(), "any".into());
                }
                if clears && map.contains_key("chunk") {
                    map.insert("chunk".to_owned(), "any".into());
                }
                if map.contains_key("each_chunk") {
                    map.insert("pages".to_owned(), "any".into());
                }
                if let Some(writer) = writer
                    && let Some(mut pages) = map.shift_remove("pages")
                {
                    let twice = has_twice(&pages);
                    self.any(&mut pages);
                    if self.0.slots.len() < 2 {
                        tables.insert(writer.to_owned(), json!({ "tables": "any" }));
                    } else {
                        map.insert("pages".to_owned(), pages);
                    }
                    if twice {
                        let step = Value::Object(std::mem::take(map));
                        map.insert("any_number".to_owned(), json!([step]));
                        return;
                    }
                }
                map.values_mut()
                    .for_each(|value| self.unname(value, tables));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.unname(item, tables)),
            _ => {}
        }
    }
}

/// Whether each CLEAR is given whole words of its memslot: one that is refused clears nothing, and is not what stands for it.
fn clears_whole_words(machine: &Machine) -> bool {
    let bits = u64::from(machine.constants.word_bits);
    let is_whole = |op: &op::ClearDirtyLog| {
        let slot = machine.slots.iter().find(|slot| slot.number() == op.slot);
        let npages = slot.map_or(0, |slot| u64::from(slot.npages));
        let (first, pages) = (op.first_page, u64::from(op.num_pages));
        let end = first.saturating_add(pages);
        let whole = pages.is_multiple_of(bits) || end == npages;
        first.is_multiple_of(bits) && whole && pages > 0 && end <= npages
    };
    let ops = machine.programs.iter().flatten();
    let mut clears = ops.filter_map(|op| match op {
        Op::ClearDirtyLog(op) => Some(op),
        _ => None,
    });
    clears.all(is_whole)
}

/// Whether a list names something twice.
fn has_twice(pages: &Value) -> bool {
    let pages = pages.as_array().map_or(&[][..], Vec::as_slice);
    let named = |at: usize| pages[..at].contains(&pages[at]);
    (0..pages.len()).any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(name: &str) -> Scenario {
        let scenario = Scenario::find(name).expect("it comes with the program");
        scenario.widened().expect("it has numbers").scenario
    }

    #[test]
    fn the_least_rings_have_room_for_what_comes_between_two_checks() {
        let scenario = |ring: &str| {
            let text = format!(
                "name = \"rings\"\n[machine]\narch = \"x86\"\npages = 2\npml = true\npml_entries = 2\n{ring}\n[writers]\nvcpu = {{ stores = 1 }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", \"pause-vcpus\", \"harvest-rings\", \"copy\", \"finish\"]\n"
            );
            Scenario::from_toml("rings.toml", &text).expect("it is right")
        };
        let least = scenario("ring = { entries = 8, reserved = 4 }").with_least_rings();
        let least = least
            .expect("one fault and two of a buffer need three in reserve, and one more is four");
        assert_eq!(
            (least.ring_entries(), least.machine.constants.ring_reserved),
            (4, 3)
        );
        assert!(least.with_least_rings().is_none());
    }

    #[test]
    fn what_has_a_number_has_any() {
        let docs = wide("kernel-docs");
        assert!(docs.any_pages);
        assert_eq!(docs.source["writers"]["vcpu"]["stores"], "any");
        assert_eq!(docs.source["writers"]["its_save"]["tables"], "any");
        assert_eq!(
            docs.source["protocol"]["steps"][2]["any_number"][0],
            "harvest-rings"
        );
        // It is read again as it is, and has no numbers left.
        let again = Scenario::from_json("again", &docs.source).expect("it is right");
        assert_eq!(again.machine, docs.machine);
        assert!(docs.widened().is_none());
    }

    #[test]
    fn a_writer_that_names_its_pages_writes_any() {
        let text = "name = \"writer\"\n[machine]\narch = \"x86\"\nvcpus = 1\npages = 2\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", { step = \"kernel-write\", pages = [0, 1, 0] }, { step = \"kernel-write\", pages = [1] }, \"get-dirty-log\", \"copy\", \"finish\"]\n";
        let scenario = Scenario::from_toml("writer", text).expect("it is right");
        let wide = scenario.widened().expect("it has numbers").scenario;
        let steps = &wide.source["protocol"]["steps"];
        assert!(wide.any_pages);
        assert_eq!(
            steps[2],
            json!({ "any_number": [{ "step": "kernel-write" }] })
        );
        assert_eq!(steps[3], json!({ "step": "kernel-write" }));
        assert_eq!(wide.source["writers"]["kernel_write"]["tables"], "any");
    }

    #[test]
    fn pages_that_a_copy_names_keep_their_number() {
        let text = "name = \"vmm\"\n[machine]\narch = \"x86\"\nvcpus = 1\npages = 2\n[writers]\nvcpu = { stores = 1 }\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", { step = \"copy\", pages = [0] }, \"finish\"]\n";
        let scenario = Scenario::from_toml("vmm", text).expect("it is right");
        let wide = scenario.widened().expect("it has numbers");
        assert!(!wide.scenario.any_pages && wide.pages_stay.is_some());
        assert_eq!(wide.scenario.source["writers"]["vcpu"]["stores"], "any");
    }

    #[test]
    fn a_page_that_is_named_is_one_of_any_number() {
        let text = "name = \"named\"\n[machine]\narch = \"x86\"\nvcpus = 1\npages = 2\n[writers]\nvcpu = { stores = 1 }\nkernel_record = { updates = 1, page = 1 }\nalways_dirty = [0]\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", { step = \"vmm-write\", page = 0 }, { step = \"drop-free\", pages = [1] }, \"take-always-dirty\", \"copy\", \"finish\"]\n";
        let scenario = Scenario::from_toml("named", text).expect("it is right");
        let wide = scenario.widened().expect("it has numbers").scenario;
        assert!(wide.any_pages);
        let (writers, steps) = (&wide.source["writers"], &wide.source["protocol"]["steps"]);
        assert_eq!(
            writers["kernel_record"],
            json!({ "updates": "any", "page": "page-1" })
        );
        assert_eq!(writers["always_dirty"], json!(["page-0"]));
        assert_eq!(steps[2]["page"], "page-0");
        assert_eq!(steps[3]["pages"], json!(["page-1"]));
    }

    #[test]
    fn pages_of_devices_and_parts_of_memslots_become_kinds_and_any() {
        let net = wide("cloud-hypervisor-net");
        assert!(net.any_pages);
        let device = &net.source["writers"]["devices"][0];
        assert_eq!(device["transfers"], "any");
        assert_eq!(device["pages"], json!(["page-1"]));
        let queues = wide("firecracker-full");
        assert_eq!(
            queues.source["protocol"]["steps"][0]["pages"],
            queues.source["writers"]["devices"][1]["pages"]
        );
        assert_eq!(
            wide("qemu-bitmap").source["protocol"]["steps"][3]["pages"],
            "any"
        );
        let words = wide("bitmap-last-two-words");
        assert_eq!(words.source["protocol"]["steps"][3]["chunk"], "any");
    }

    #[test]
    fn tables_stay_in_their_memslots() {
        let text = "name = \"two\"\n[machine]\narch = \"x86\"\nvcpus = 1\n[[slots]]\nname = \"low\"\npages = 2\n[[slots]]\nname = \"high\"\npages = 1\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", { step = \"kernel-write\", pages = [2, \"low:1\", 0] }, \"get-dirty-log\", \"copy\", \"finish\"]\n";
        let scenario = Scenario::from_toml("two", text).expect("it is right");
        let wide = scenario.widened().expect("it has numbers").scenario;
        assert!(wide.any_pages);
        assert_eq!(
            wide.source["protocol"]["steps"][2]["pages"],
            json!(["high:any", "low:any"])
        );
    }

    #[test]
    fn a_clear_of_no_whole_words_keeps_the_number_of_pages() {
        let text = "name = \"part\"\n[machine]\narch = \"x86\"\nvcpus = 1\npages = 4\nword_bits = 2\nmanual_protect = true\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", { step = \"clear-dirty-log\", first = 1, pages = 1 }, \"copy\", \"finish\"]\n";
        let scenario = Scenario::from_toml("part", text).expect("it is right");
        let wide = scenario.widened().expect("the number of pages stays");
        assert!(!wide.scenario.any_pages);
    }
}
