//! The corpus as a table: every bug that was collected, and how it is reproduced or why it is not.

use super::{Bug, Oracle, Reproduction};

macro_rules! scenario {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../scenarios/bugs/", $name, ".toml")),
        )
    };
}

macro_rules! bugs {
    ($($id:literal $year:literal $oracle:ident $title:literal $source:literal: $how:tt;)+) => {
        /// Every bug of the corpus, kernel first, then QEMU, then other VMMs.
        pub const BUGS: &[Bug] = &[$(Bug {
            id: $id,
            title: $title,
            year: $year,
            source: $source,
            oracle: Oracle::$oracle,
            how: bugs!(@how $how),
        },)+];
    };
    (@how [$($name:literal),+]) => {
        Reproduction::Scenarios(&[$(scenario!($name),)+])
    };
    (@how ($reason:literal)) => {
        Reproduction::NotExpressible($reason)
    };
}

bugs! {
    "K01" 2010 Lost "GET protects before it swaps the bitmap" "Linux edde99ce0529": ["k01"];
    "K02" 2010 Lost "overflow of the index of a bitmap bit" "Linux 87bf6e7de113": ["k02"];
    "K03" 2013 Lost "areas that the host writes for a guest are not in the map" "Linux c35635efdc03": ["k03"];
    "K04" 2014 Lost "one bit for a huge page" "Linux 687414bebe30": ["k04"];
    "K06" 2014 Lost "the Hyper-V hypercall page is not marked" "Linux b3af1e889ec4": ["k06"];
    "K07" 2017 Lost "huge guests: page tables that are not there are asked" "Linux 2e4d88009f57": ["k07"];
    "K08" 2019 Spur "CLEAR: wrong range, tail never cleared" "Linux 53eac7a8f8cf, 4ddc9204572c": ["k08", "k08-source-range"];
    "K09" 2019 Lost "vhost logs I/O virtual addresses" "Linux cc5e71075947": ["k09"];
    "K11" 2021 Lost "PML logs the inner guest's addresses" "Linux 1f4e5fc83a42": ["k11"];
    "K12" 2021 Spur "marked although the fault failed" "Linux 509552e65ae8": ["k12"];
    "K13" 2022 Crash "a mark without a vCPU oopses with a ring" "Linux 2efd61a608b0": ["k13"];
    "K14" 2022 Lost "kernel writers that mark nothing by contract" "Linux cf1d88b36ba7": ["k14"];
    "K15" 2022 Lost "no TLB flush when enabling the log changed no leaf" "Linux b64d740ea7dd": ["k15"];
    "K16" 2022 Lost "ring entries without acquire and release in RESET" "Linux 8929bc965964": ["k16"];
    "K17" 2022 Lost "writers that are not on the list are dropped" "Linux c57351a75d01": ["k17"];
    "K18" 2023 Lost "the pending-table save is not on the list" "Linux a23eaf9368aa, 6028acbe3a5f": ["k18"];
    "K19" 2022 Lost "iova_bitmap: a bitmap that begins within a page" "Linux f38044e5ef58": ["k19"];
    "K20" 2024 Lost "iova_bitmap: a huge mapping that crosses the window" "Linux a4ab7dedaee0, 2780025e01e2": ["k20"];
    "K21" 2025 Lost "RESET's count wraps, and TLBs are not flushed" "Linux 530a8ba71b4c": ["k21"];
    "K23" 2025 Spur "structures of a nested guest marked though never mapped" "Linux 70b02809ded9": ["k23"];
    "Q03" 2016 Lost "only one address space is synchronised" "QEMU 9c1f8f4493": ["q03"];
    "Q04" 2017 Lost "wrong offset into the global bitmap" "QEMU 084140bd49": ["q04"];
    "Q05" 2017 Lost "a block that begins in the middle of a word" "QEMU f70d3451fe": ["q05"];
    "Q06" 2018 Lost "a block that ends in the middle of a word" "QEMU aa777e297c": ["q06"];
    "Q08" 2015 Lost "wrong base of vhost's log" "QEMU e05ca82002": ["q08"];
    "Q09" 2015 Lost "wrong queue index with several queues" "QEMU 25a2a920dd": ["q09"];
    "Q10" 2018 Lost "an emulator's flag is cleared before its write lands" "QEMU 9458a9a1df": ["q10"];
    "Q12" 2019 Lost "CLEAR of bits that were never seen" "QEMU 84516e5b8d, 25aa6b3718, 4054adbdd2": ["q12", "q12-start-offset"];
    "Q13" 2019 Crash "a slot made again between sync and CLEAR" "QEMU 9b3a31c745": ["q13"];
    "Q14" 2021 Lost "a ring with INITIALLY_SET" "QEMU a81a592698": ["q14"];
    "Q15" 2021 Lost "the ring's mapping is too short" "QEMU dcafa24827": ["q15"];
    "Q16" 2022 Lost "no acquire on the flag, no release on its return" "QEMU 4802bf910e, 52281c6d11": ["q16", "q16-release"];
    "Q17" 2023 Crash "the reaper races the creation of a vCPU" "QEMU 56adee407f": ["q17"];
    "Q18" 2021 Lost "bits published before the pages are protected again" "QEMU kvm_dirty_ring_reap()": ["q18"];
    "Q19" 2018 Lost "free-page hints after the last sync" "QEMU fd51e54fa1, 3143577d6a, 386a907b37": ["q19"];
    "Q21" 2023 Abi "VFIO's log read before tracking was started" "QEMU ff180c6bd7": ["q21"];
    "Q23" 2022 Lost "vhost's used ring by its I/O virtual address" "QEMU 345cc1cbcb, 240e647a14": ["q23"];
    "Q24" 2022 Crash "a second start while the stop is postponed" "QEMU a5c90c61a1, 7b0538ed3a": ["q24"];
    "Q25" 2022 Stuck "a full ring makes the VMM reap all rings, and throttled vCPUs never sleep" "QEMU 1667e2b97b":
        ("it is about how long a vCPU sleeps, and the model has no time: every schedule that the bug allows is one of the right VMM's too");
    "F01" 2020 Lost "diff snapshots miss the VMM's own writes" "Firecracker #1997": ["f01"];
    "F02" 2021 Lost "asynchronous completions are not marked" "Firecracker 046d7441c": ["f02"];
    "F05" 2026 Lost "a slot's clean tail is not skipped in the file" "Firecracker #5696, 524c6d8fb": ["f05"];
    "F06" 2023 Lost "virtio-rng's buffer is not marked" "Firecracker 6d8c3064f": ["f06"];
    "F07" 2024 Lost "queues are marked once per snapshot" "Firecracker #2888": ["f07"];
    "F08" 2021 Lost "trouble after resuming from diff snapshots" "Firecracker #2802":
        ("its cause was never found: there is no wrong behaviour to switch on");
    "C01" 2021 Lost "the VMM's writes are not in the migration" "cloud-hypervisor #2458": ["c01"];
    "C02" 2021 Spur "64 pages are reported for one" "cloud-hypervisor 78796f96b": ["c02"];
    "C03" 2021 Stuck "the error path leaves the log on and the VM paused" "cloud-hypervisor 71c7dff32": ["c03"];
    "C05" 2026 Lost "resident pages taken for all pages" "cloud-hypervisor #8525": ["c05"];
    "P02" 2022 Lost "device writes are not in the dirty map" "Propolis #233": ["p02"];
    "P03" 2023 Lost "a failed migration consumed the dirty bits" "Propolis #387": ["p03"];
}
