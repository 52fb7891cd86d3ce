/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A migration by dirty rings, as a VMM in C has it: a reaper thread harvests beside the migration thread, under the lock of the slots;
 * what it found waits in the slots' bitmap until a sync takes it.
 *
 *   cc -Ikvm/c/include -o ring kvm/c/examples/ring.c target/release/libdirtysim_c.a -lpthread -ldl -lm
 *
 * With -DPUBLISHES_LATE what was harvested joins the bitmap only after the lock was dropped: then a sync between the two misses it.
 */
#include <string.h>

#include "dirtysim.h"

static const char machine[] =
	"name = \"ring\"\n"
	"[machine]\n"
	"arch = \"x86\"\n"
	"ring = { entries = 2, reserved = 1 }\n"
	"[[slots]]\n"
	"id = 0\n"
	"pages = 1\n"
	"[writers]\n"
	"vcpu = { stores = 1 }\n";

/* What the threads of one run share. It outlives their stacks. */
struct migration {
	uint32_t slots_lock;
	/* A bit for each page of memslot 0. */
	uint64_t dirty;
};

/* Harvests every ring into the bitmap and resets them. */
static void reap(struct dirtysim_vm *vm, struct migration *migration)
{
	struct kvm_dirty_gfn gfn;
	uint64_t found = 0;
	int harvested = 0;
	uint8_t vcpu;

	dirtysim_lock(vm, migration->slots_lock);
	for (vcpu = 0; vcpu < dirtysim_vcpus(vm); vcpu++) {
		while (dirtysim_ring_next(vm, vcpu, &gfn)) {
			found |= UINT64_C(1) << gfn.offset;
			harvested++;
		}
	}
#ifndef PUBLISHES_LATE
	migration->dirty |= found;
#endif
	if (dirtysim_ioctl(vm, KVM_RESET_DIRTY_RINGS, NULL) != harvested)
		dirtysim_fail(vm, "the kernel takes back what was harvested");
	dirtysim_unlock(vm, migration->slots_lock);
#ifdef PUBLISHES_LATE
	dirtysim_lock(vm, migration->slots_lock);
	migration->dirty |= found;
	dirtysim_unlock(vm, migration->slots_lock);
#endif
}

static void reaper(struct dirtysim_vm *vm, void *opaque)
{
	/* It sleeps for a second between two of these; here it has one. */
	reap(vm, opaque);
}

static void send(struct dirtysim_vm *vm, uint64_t pages)
{
	uint64_t page;

	for (page = 0; page < 64; page++)
		if (pages >> page & 1)
			dirtysim_send_page(vm, 0, page);
}

static void migrate(struct dirtysim_vm *vm, void *opaque)
{
	static struct migration migration;
	struct kvm_userspace_memory_region ram;
	uint64_t last;

	(void)opaque;
	memset(&migration, 0, sizeof(migration));
	migration.slots_lock = dirtysim_new_lock(vm);
	dirtysim_memory_region(vm, 0, &ram);
	ram.flags = KVM_MEM_LOG_DIRTY_PAGES;
	if (dirtysim_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &ram))
		dirtysim_fail(vm, "the log cannot be switched on");
	dirtysim_spawn(vm, reaper, &migration);
	send(vm, (UINT64_C(1) << ram.memory_size / dirtysim_page_size(vm)) - 1);
	dirtysim_pause_vcpus(vm);
	reap(vm, &migration);
	dirtysim_lock(vm, migration.slots_lock);
	last = migration.dirty;
	migration.dirty = 0;
	dirtysim_unlock(vm, migration.slots_lock);
	send(vm, last);
	dirtysim_assert_copy_is_whole(vm);
}

int main(void)
{
	return dirtysim_conclude(dirtysim_check(machine, migrate, NULL));
}
