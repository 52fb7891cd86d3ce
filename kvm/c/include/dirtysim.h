/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A VMM's own C code, unchanged, under every schedule of a simulated KVM.
 *
 * The code under test is a function. It is run again and again from its begin: it must do the same after the same answers, keep nothing
 * from run to run, and start threads by dirtysim_spawn alone. What it has allocated when a run is given up is lost; a run is given up
 * within a call of this library, by longjmp() past the code's own frames and no others. Each call is a point at which the guest, the
 * kernel's other work and the code's other threads may act.
 *
 * Every function that takes a struct dirtysim_vm is told with the file and line that call it.
 */
#ifndef DIRTYSIM_H
#define DIRTYSIM_H

#include <linux/kvm.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The simulated machine, as one thread of the code has it. */
struct dirtysim_vm;
/* What a test came to. */
struct dirtysim_result;

typedef void (*dirtysim_code)(struct dirtysim_vm *vm, void *opaque);
/* Calls the code, and comes back too where a run is given up. */
typedef void (*dirtysim_enter_fn)(struct dirtysim_vm *vm, dirtysim_code code, void *opaque);

/*
 * The library. Use the macros below, which add where they are called.
 */

/* machine: the text of a scenario's [machine], [[slots]] and [writers]. Never NULL. */
struct dirtysim_result *dirtysim_check_by(const char *machine, dirtysim_enter_fn enter, dirtysim_code code, void *opaque);
struct dirtysim_result *dirtysim_run_by(const char *machine, uint64_t first_seed, uint64_t last_seed, dirtysim_enter_fn enter, dirtysim_code code, void *opaque);
struct dirtysim_result *dirtysim_replay_by(const char *machine, const char *trace, dirtysim_enter_fn enter, dirtysim_code code, void *opaque);

/* Whether the code failed, under some schedule or as such. */
int dirtysim_result_failed(const struct dirtysim_result *result);
/* What was seen, or how it failed: the story. It lives as long as the result. */
const char *dirtysim_result_text(const struct dirtysim_result *result);
/* Writes the schedule under which it failed as a trace of dirtysim; 0, or -1 where there is none or it cannot be written. */
int dirtysim_result_write_trace(const struct dirtysim_result *result, const char *path);
void dirtysim_result_free(struct dirtysim_result *result);

/* What the wrappers use: where to go when a run is given up. */
void dirtysim_set_exit(struct dirtysim_vm *vm, void *exit);
void *dirtysim_exit(const struct dirtysim_vm *vm);

int dirtysim_ioctl_at(struct dirtysim_vm *vm, unsigned long request, void *argument, const char *file, uint32_t line);
int dirtysim_ring_next_at(struct dirtysim_vm *vm, uint8_t vcpu, struct kvm_dirty_gfn *gfn, const char *file, uint32_t line);
void dirtysim_send_page_at(struct dirtysim_vm *vm, uint32_t slot, uint64_t offset, const char *file, uint32_t line);
void dirtysim_store_page_at(struct dirtysim_vm *vm, uint32_t slot, uint64_t offset, const char *file, uint32_t line);
void dirtysim_kick_vcpus_at(struct dirtysim_vm *vm, const char *file, uint32_t line);
void dirtysim_pause_vcpus_at(struct dirtysim_vm *vm, const char *file, uint32_t line);
void dirtysim_resume_vcpus_at(struct dirtysim_vm *vm, const char *file, uint32_t line);
void dirtysim_wait_ring_full_at(struct dirtysim_vm *vm, const char *file, uint32_t line);
void dirtysim_ack_ring_full_at(struct dirtysim_vm *vm, const char *file, uint32_t line);
int dirtysim_its_save_tables_at(struct dirtysim_vm *vm, const char *file, uint32_t line);
void dirtysim_assert_copy_is_whole_at(struct dirtysim_vm *vm, const char *file, uint32_t line);
void dirtysim_fail_at(struct dirtysim_vm *vm, const char *why, const char *file, uint32_t line);
uint32_t dirtysim_spawn_at(struct dirtysim_vm *vm, dirtysim_enter_fn enter, dirtysim_code code, void *opaque, const char *file, uint32_t line);
void dirtysim_join_at(struct dirtysim_vm *vm, uint32_t thread, const char *file, uint32_t line);
uint32_t dirtysim_new_lock_at(struct dirtysim_vm *vm, const char *file, uint32_t line);
void dirtysim_lock_at(struct dirtysim_vm *vm, uint32_t lock, const char *file, uint32_t line);
void dirtysim_unlock_at(struct dirtysim_vm *vm, uint32_t lock, const char *file, uint32_t line);

/* What the machine has, by which nobody else may act. */
uint32_t dirtysim_slots(const struct dirtysim_vm *vm);
/* A memslot of the machine as it begins, log off, by its place in the list; 0, or -1 where there is none. */
int dirtysim_memory_region(const struct dirtysim_vm *vm, uint32_t index, struct kvm_userspace_memory_region *region);
uint8_t dirtysim_vcpus(const struct dirtysim_vm *vm);
uint32_t dirtysim_page_size(const struct dirtysim_vm *vm);

/*
 * Giving a run up: by C, past C.
 */

static inline void dirtysim_enter(struct dirtysim_vm *vm, dirtysim_code code, void *opaque)
{
	jmp_buf here;

	dirtysim_set_exit(vm, &here);
	if (setjmp(here) == 0)
		code(vm, opaque);
}

static inline void dirtysim_look(struct dirtysim_vm *vm)
{
	jmp_buf *given_up = (jmp_buf *)dirtysim_exit(vm);

	if (given_up)
		longjmp(*given_up, 1);
}

static inline int dirtysim_looked(struct dirtysim_vm *vm, int answer)
{
	dirtysim_look(vm);
	return answer;
}

static inline uint32_t dirtysim_looked_number(struct dirtysim_vm *vm, uint32_t number)
{
	dirtysim_look(vm);
	return number;
}

/*
 * What code and tests call.
 */

/* The code under every schedule; where a limit comes first, under those of seeds. */
#define dirtysim_check(machine, code, opaque) dirtysim_check_by(machine, dirtysim_enter, code, opaque)
/* The code under the schedules of seeds, the last excluded. */
#define dirtysim_run(machine, first, last, code, opaque) dirtysim_run_by(machine, first, last, dirtysim_enter, code, opaque)
/* The code under the schedule of a trace. */
#define dirtysim_replay(machine, trace, code, opaque) dirtysim_replay_by(machine, trace, dirtysim_enter, code, opaque)

/*
 * KVM_SET_USER_MEMORY_REGION, KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG and KVM_RESET_DIRTY_RINGS, with the structures of <linux/kvm.h>;
 * the answer, or the errno below zero.
 */
#define dirtysim_ioctl(vm, request, argument) \
	dirtysim_looked(vm, dirtysim_ioctl_at(vm, request, argument, __FILE__, __LINE__))
/* The next dirty entry of a vCPU's ring, which is given back as harvested: 1, or 0 where none is dirty. */
#define dirtysim_ring_next(vm, vcpu, gfn) \
	dirtysim_looked(vm, dirtysim_ring_next_at(vm, vcpu, gfn, __FILE__, __LINE__))
/* The instant at which a page is read for the destination. */
#define dirtysim_send_page(vm, slot, offset) \
	(dirtysim_send_page_at(vm, slot, offset, __FILE__, __LINE__), dirtysim_look(vm))
/* The VMM stores to guest memory by itself. */
#define dirtysim_store_page(vm, slot, offset) \
	(dirtysim_store_page_at(vm, slot, offset, __FILE__, __LINE__), dirtysim_look(vm))
/* Signals every vCPU and waits until each has left KVM_RUN once. */
#define dirtysim_kick_vcpus(vm) (dirtysim_kick_vcpus_at(vm, __FILE__, __LINE__), dirtysim_look(vm))
/* Stops the guest, and waits until it stands. */
#define dirtysim_pause_vcpus(vm) (dirtysim_pause_vcpus_at(vm, __FILE__, __LINE__), dirtysim_look(vm))
#define dirtysim_resume_vcpus(vm) (dirtysim_resume_vcpus_at(vm, __FILE__, __LINE__), dirtysim_look(vm))
/* Waits until a vCPU has left with KVM_EXIT_DIRTY_RING_FULL. */
#define dirtysim_wait_ring_full(vm) (dirtysim_wait_ring_full_at(vm, __FILE__, __LINE__), dirtysim_look(vm))
#define dirtysim_ack_ring_full(vm) (dirtysim_ack_ring_full_at(vm, __FILE__, __LINE__), dirtysim_look(vm))
/* KVM_DEV_ARM_ITS_SAVE_TABLES; 0, or the errno below zero. */
#define dirtysim_its_save_tables(vm) \
	dirtysim_looked(vm, dirtysim_its_save_tables_at(vm, __FILE__, __LINE__))
/* The claim: the destination equals memory. */
#define dirtysim_assert_copy_is_whole(vm) \
	(dirtysim_assert_copy_is_whole_at(vm, __FILE__, __LINE__), dirtysim_look(vm))
/* The code has failed, as by an assertion: it does not come back. */
#define dirtysim_fail(vm, why) (dirtysim_fail_at(vm, why, __FILE__, __LINE__), dirtysim_look(vm))
/* Starts a thread of the code; at most two beside the first. Its number. */
#define dirtysim_spawn(vm, code, opaque) \
	dirtysim_looked_number(vm, dirtysim_spawn_at(vm, dirtysim_enter, code, opaque, __FILE__, __LINE__))
#define dirtysim_join(vm, thread) (dirtysim_join_at(vm, thread, __FILE__, __LINE__), dirtysim_look(vm))
/* A lock between threads of the code. */
#define dirtysim_new_lock(vm) dirtysim_looked_number(vm, dirtysim_new_lock_at(vm, __FILE__, __LINE__))
#define dirtysim_lock(vm, lock) (dirtysim_lock_at(vm, lock, __FILE__, __LINE__), dirtysim_look(vm))
#define dirtysim_unlock(vm, lock) (dirtysim_unlock_at(vm, lock, __FILE__, __LINE__), dirtysim_look(vm))

/* Prints what a test came to and frees it; what main() may return. */
static inline int dirtysim_conclude(struct dirtysim_result *result)
{
	int failed = dirtysim_result_failed(result);

	fprintf(failed ? stderr : stdout, "%s\n", dirtysim_result_text(result));
	dirtysim_result_free(result);
	return failed;
}

#ifdef __cplusplus
}
#endif

#endif
