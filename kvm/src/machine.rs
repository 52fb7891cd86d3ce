//! The machine that the code under test is given: architecture, kernel, memslots, rings, and what its guest stores.

use std::collections::BTreeMap;
use std::fmt;

use dirtysim_check::scenario::{Scenario, ScenarioError};
pub use dirtysim_model::words::Arch;
use serde_json::{Map, Value, json};

/// A machine to run code against.
///
/// It begins with the kernel that dirtysim knows last, one vCPU that makes one store anywhere, no ring, no manual protect, and no
/// memslot. Memslots, capabilities and vCPUs are there before the code begins, logging is off.
///
/// A search is exhaustive within such a machine, so keep it small: two memslots of one or two pages, one or two vCPUs of
/// one to three stores, a ring of four entries show what larger ones do. Sizes are scaled with it: a ring of 4 entries has a reserve of 2.
///
/// ```
/// use dirtysim_kvm::{Arch, Machine};
///
/// let machine = Machine::new(Arch::Arm64)
///     .kernel("6.12")
///     .slot(0, 2)
///     .slot(1, 2)
///     .ring(4)
///     .ring_with_bitmap()
///     .vcpus(2)
///     .stores(2);
/// assert!(machine.try_build().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    name: Option<String>,
    pub(crate) machine: Map<String, Value>,
    pub(crate) slots: Vec<Value>,
    /// By the memslot's number, where the VMM has it; the others are where the model has them.
    pub(crate) addresses: BTreeMap<u32, u64>,
    writers: Map<String, Value>,
    /// What else a scenario's text has: mutations.
    rest: Map<String, Value>,
}

/// A machine that cannot be: what is wrong with it, where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineError(String);

impl MachineError {
    pub(crate) fn new(what: String) -> Self {
        Self(what)
    }
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MachineError {}

impl From<Box<ScenarioError>> for MachineError {
    fn from(error: Box<ScenarioError>) -> Self {
        Self(error.to_string())
    }
}

/// A page, by its memslot and its offset in that, as ring entries name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Page {
    /// The memslot's number, `as_id << 16 | id`.
    pub slot: u32,
    /// The page's offset in it, in pages.
    pub offset: u64,
}

impl Page {
    /// The page of a memslot at an offset in pages.
    #[must_use]
    pub fn new(slot: u32, offset: u64) -> Self {
        Self { slot, offset }
    }
}

impl From<(u32, u64)> for Page {
    fn from((slot, offset): (u32, u64)) -> Self {
        Self { slot, offset }
    }
}

/// As a scenario names a page of a memslot that has no other name.
fn name_of(page: Page) -> String {
    format!("slot{}:{}", page.slot, page.offset)
}

impl Machine {
    /// A machine of an architecture.
    #[must_use]
    pub fn new(arch: Arch) -> Self {
        let mut machine = Map::new();
        machine.insert("arch".to_owned(), arch.name().into());
        let mut writers = Map::new();
        writers.insert("vcpu".to_owned(), json!({ "stores": 1 }));
        Self {
            name: None,
            machine,
            slots: Vec::new(),
            addresses: BTreeMap::new(),
            writers,
            rest: Map::new(),
        }
    }

    /// The machine of a scenario: its `[machine]`, `[[slots]]` and `[writers]`, and its `mutations`, which are wrong kernels to try the
    /// code against. A `[protocol]` is passed over: the code takes its place.
    ///
    /// # Errors
    /// What is wrong in the text, where, and what to write instead.
    ///
    /// ```
    /// let machine = dirtysim_kvm::Machine::from_toml(
    ///     r#"
    ///     name = "small"
    ///     [machine]
    ///     arch = "x86"
    ///     pages = 2
    ///     [writers]
    ///     vcpu = { stores = 2 }
    ///     "#,
    /// )?;
    /// # Ok::<(), dirtysim_kvm::MachineError>(())
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, MachineError> {
        Self::from_text("the machine's text", text)
    }

    /// The same, from a file.
    ///
    /// # Errors
    /// A file that cannot be read, and as [`Machine::from_toml`].
    pub fn from_file(path: impl AsRef<std::path::Path>) -> Result<Self, MachineError> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| MachineError(format!("{file}: cannot be read: {error}")))?;
        Self::from_text(&file, &text)
    }

    fn from_text(file: &str, text: &str) -> Result<Self, MachineError> {
        let has_protocol = text.lines().any(|line| line.trim() == "[protocol]");
        let protocol = "\n[protocol]\nsteps = [\"finish\"]\n";
        let whole = format!("{text}{}", if has_protocol { "" } else { protocol });
        let scenario = Scenario::from_expansion(file, &whole)?;
        let mut source = match scenario.source {
            Value::Object(source) => source,
            _ => Map::new(),
        };
        let mut table = |key: &str| match source.remove(key) {
            Some(Value::Object(table)) => table,
            _ => Map::new(),
        };
        let (machine, writers) = (table("machine"), table("writers"));
        let slots = match source.remove("slots") {
            Some(Value::Array(slots)) => slots,
            _ => Vec::new(),
        };
        source.retain(|key, _| key == "mutations");
        Ok(Self {
            name: Some(scenario.name),
            machine,
            slots,
            addresses: BTreeMap::new(),
            writers,
            rest: source,
        })
    }

    /// The name that its text has.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The names of its devices.
    pub(crate) fn device_names(&self) -> Vec<String> {
        let devices = self.writers.get("devices").and_then(Value::as_array);
        let named = devices.into_iter().flatten().enumerate();
        named
            .map(|(number, device)| {
                let name = device["name"].as_str();
                name.map_or_else(|| format!("device{number}"), str::to_owned)
            })
            .collect()
    }

    fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.machine.insert(key.to_owned(), value.into());
        self
    }

    /// The kernel's version: `"5.15"`, `"6.1"`, `"6.6"`, `"6.12"`, `"6.18"`, `"7.2"` or `"7.3"`.
    #[must_use]
    pub fn kernel(self, version: &str) -> Self {
        self.set("kernel", version)
    }

    /// A memslot of address space 0: its id, 0 to 14, and its size in pages, at least 1. Its log is off.
    #[must_use]
    pub fn slot(mut self, id: u32, pages: u32) -> Self {
        let name = format!("slot{id}");
        self.slots
            .push(json!({ "name": name, "id": id, "pages": pages }));
        self
    }

    /// Dirty rings of so many entries, a power of two from 2 to 32, half of which are the reserve.
    #[must_use]
    pub fn ring(self, entries: u32) -> Self {
        self.set(
            "ring",
            json!({ "entries": entries, "reserved": entries / 2 }),
        )
    }

    /// KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, which arm64 has.
    #[must_use]
    pub fn ring_with_bitmap(self) -> Self {
        self.set("ring_with_bitmap", true)
    }

    /// KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE: GET re-arms nothing, CLEAR does.
    #[must_use]
    pub fn manual_protect(self) -> Self {
        self.set("manual_protect", true)
    }

    /// The same with KVM_DIRTY_LOG_INITIALLY_SET.
    #[must_use]
    pub fn initially_set(self) -> Self {
        self.set("manual_protect", "initially-set")
    }

    /// x86: the CPUs have PML, here with buffers of 2.
    #[must_use]
    pub fn pml(self) -> Self {
        self.set("pml", true)
    }

    /// How many vCPUs there are, 1 to 4.
    #[must_use]
    pub fn vcpus(self, vcpus: u32) -> Self {
        self.set("vcpus", vcpus)
    }

    /// How many stores each vCPU's guest makes at most, 1 to 31, anywhere in memory.
    #[must_use]
    pub fn stores(self, stores: u32) -> Self {
        self.guest("stores", stores)
    }

    /// How many loads each makes besides, 1 to 31: they matter where a read fault marks a page.
    #[must_use]
    pub fn loads(self, loads: u32) -> Self {
        self.guest("loads", loads)
    }

    fn guest(mut self, key: &str, value: u32) -> Self {
        let vcpu = self.writers.entry("vcpu").or_insert_with(|| json!({}));
        if let Value::Object(vcpu) = vcpu {
            vcpu.insert(key.to_owned(), value.into());
        }
        self
    }

    /// A device that writes to guest memory by itself and has a log of its own, as vhost and VFIO have one: its name, how many transfers it makes at
    /// most, 1 to 31, and the pages that it writes, one of them at a time. It stands until [`Device::start`](crate::Device::start).
    ///
    /// ```
    /// use dirtysim_kvm::{Arch, Machine, Page, Vm, check};
    ///
    /// let machine = Machine::new(Arch::X86).slot(0, 2).device("net", 1, [Page::new(0, 1)]);
    /// check(machine, |vm: Vm| {
    ///     let net = vm.device("net");
    ///     let ram = vm.memory_region(0);
    ///     vm.set_user_memory_region(ram.log_dirty_pages()).unwrap();
    ///     net.start();
    ///     vm.send_all_pages();
    ///     vm.pause_vcpus();
    ///     net.drain();
    ///     let bits = vm.get_dirty_log(0, ram.memory_size as usize).unwrap()[0];
    ///     (0..2).filter(|page| bits >> page & 1 != 0).for_each(|page| vm.send_page(0, page));
    ///     for page in net.dirty_pages() {
    ///         vm.send_page(page.slot, page.offset);
    ///     }
    ///     vm.assert_copy_is_whole();
    /// });
    /// ```
    #[must_use]
    pub fn device(
        mut self,
        name: &str,
        transfers: u32,
        pages: impl IntoIterator<Item = Page>,
    ) -> Self {
        let device = json!({
            "name": name,
            "transfers": transfers,
            "pages": pages.into_iter().map(name_of).collect::<Vec<_>>(),
        });
        let devices = self.writers.entry("devices").or_insert_with(|| json!([]));
        if let Value::Array(devices) = devices {
            devices.push(device);
        }
        self
    }

    /// The pages that KVM_DEV_ARM_ITS_SAVE_TABLES writes, in order.
    #[must_use]
    pub fn its_tables(self, pages: impl IntoIterator<Item = Page>) -> Self {
        self.tables("its_save", pages)
    }

    /// The pages that KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES writes, in order.
    #[must_use]
    pub fn pending_tables(self, pages: impl IntoIterator<Item = Page>) -> Self {
        self.tables("pending_save", pages)
    }

    fn tables(mut self, key: &str, pages: impl IntoIterator<Item = Page>) -> Self {
        let pages: Vec<String> = pages.into_iter().map(name_of).collect();
        self.writers
            .insert(key.to_owned(), json!({ "tables": pages }));
        self
    }

    /// The scenario with these steps, of each thread, in place of the code.
    pub(crate) fn scenario(
        &self,
        name: &str,
        claims: &[&str],
        threads: &[Vec<Value>],
    ) -> Result<Scenario, MachineError> {
        let mut source = Map::new();
        source.insert("name".to_owned(), name.into());
        if let Some(text) = &self.name {
            source.insert("origin".to_owned(), text.as_str().into());
        }
        source.insert("claims".to_owned(), json!(claims));
        source.extend(self.rest.clone());
        source.insert("machine".to_owned(), self.machine.clone().into());
        if !self.slots.is_empty() {
            source.insert("slots".to_owned(), self.slots.clone().into());
        }
        source.insert("writers".to_owned(), self.writers.clone().into());
        let mut protocol = json!({ "steps": threads[0] });
        if threads.len() > 1 {
            let others = threads[1..].iter();
            protocol["threads"] = others.map(|steps| json!({ "steps": steps })).collect();
        }
        source.insert("protocol".to_owned(), protocol);
        let scenario = Scenario::from_json("the machine", &Value::Object(source))?;
        Ok(scenario)
    }

    /// Whether there can be such a machine.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead: `check` and `run` panic with the same.
    pub fn try_build(&self) -> Result<(), MachineError> {
        let scenario = self.scenario("machine", &[], &[vec!["finish".into()]])?;
        let slots = &scenario.machine.slots;
        let end = |index: usize| slots[index].host + slots[index].npages;
        for (at, slot) in slots.iter().enumerate() {
            for (before, other) in slots.iter().enumerate().take(at) {
                if slot.host < end(before) && other.host < end(at) {
                    return Err(MachineError(format!(
                        "the machine: the memslots {} and {} share host memory\nhelp: give each memory of its own: whose page a ring entry means is not told apart yet",
                        other.name, slot.name
                    )));
                }
            }
        }
        Ok(())
    }
}
