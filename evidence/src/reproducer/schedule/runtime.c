
/* A schedule, step by step: what a VMM keeps, and what becomes of it. Where the guest is not running, nothing has to be waited for. */
#include <sys/time.h>

#define MOST_THREADS 8
/* Sets of pages, a byte each: to be copied; shown by GET and not yet cleared; held back by a thread of the VMM's. */
enum { NOWHERE_SET = -1, PENDING, SEEN, HANDS, SETS = HANDS + MOST_THREADS };

static uint8_t *sets[SETS][MOST_SLOTS];
static uint32_t fetch_of[MOST_VCPUS];
static uint64_t value;
/* Entries that were harvested and not yet reset, in order; pages whose entries RESET has counted as reset. */
static struct { uint32_t slot; uint64_t page; } owed[65536];
static uint64_t owed_first, owed_end;
static uint8_t *counted[MOST_SLOTS];
/* What a timer has cut short, after how long it should, and what was seen of a ring that overflows. */
static int aims_at_cut, was_cut;
static long delay_us = 100;
static uint64_t overwritten;

static uint64_t pages_of(int n, int i)
{
	return vms[n].slots[i].used ? vms[n].slots[i].pages : 0;
}

static int index_of(int n, uint32_t number)
{
	struct slot *slot = slot_of(&vms[n], number);

	if (!slot)
		die("a memslot that is not there");
	return slot - vms[n].slots;
}

static uint8_t *set_of(int n, int set, int i)
{
	if (!sets[set][i])
		sets[set][i] = calloc(pages_of(n, i) + 1, 1);
	return sets[set][i];
}

/* An attempt begins with nothing. */
UNUSED static void forget_all(void)
{
	for (int i = 0; i < MOST_SLOTS; i++) {
		for (int set = 0; set < SETS; set++) {
			free(sets[set][i]);
			sets[set][i] = NULL;
		}
		free(counted[i]);
		counted[i] = NULL;
	}
	memset(fetch_of, 0, sizeof(fetch_of));
	owed_first = owed_end = 0;
	was_cut = 0;
}

UNUSED static void enable(int n, unsigned int number, unsigned int flags, uint64_t args0)
{
	struct kvm_enable_cap cap = { .cap = number, .flags = flags, .args = { args0 } };

	if (ioctl(vms[n].fd, KVM_ENABLE_CAP, &cap)) {
		printf("skipped: this kernel does not enable capability %u so\n", number);
		exit(SKIPPED);
	}
	if (number == 192 || number == 223)
		vms[n].ring_bytes = args0;
}

/* Every page of the guest's is to be copied. */
UNUSED static void take_all(int n)
{
	for (int i = 0; i < MOST_SLOTS; i++)
		if (pages_of(n, i) && vms[n].slots[i].number != OWN_SLOT)
			memset(set_of(n, PENDING, i), 1, pages_of(n, i));
}

/* Copies what is to be copied. */
UNUSED static void copy_pending(int n)
{
	for (int i = 0; i < MOST_SLOTS; i++)
		for (uint64_t page = 0; sets[PENDING][i] && page < pages_of(n, i); page++)
			if (sets[PENDING][i][page]) {
				struct pages one = { page, 1 };

				copy(n, vms[n].slots[i].number, &one, 1);
				sets[PENDING][i][page] = 0;
			}
}

/* A thread's own pages join those that are to be copied. */
UNUSED static void publish(int n, int thread)
{
	for (int i = 0; i < MOST_SLOTS; i++)
		for (uint64_t page = 0; sets[HANDS + thread][i] && page < pages_of(n, i); page++)
			if (sets[HANDS + thread][i][page]) {
				set_of(n, PENDING, i)[page] = 1;
				sets[HANDS + thread][i][page] = 0;
			}
}

UNUSED static void forget_pending(int n)
{
	for (int i = 0; i < MOST_SLOTS; i++)
		for (int set = 0; set < SETS; set++)
			if (set != SEEN && sets[set][i])
				memset(sets[set][i], 0, pages_of(n, i));
}

UNUSED static void get(int n, uint32_t number, int into)
{
	int i = index_of(n, number);
	uint64_t *bitmap = calloc((pages_of(n, i) + 63) / 64 + 1, 8);
	struct kvm_dirty_log log = { .slot = number, .dirty_bitmap = bitmap };

	/* A call that fails brings nothing, and the VMM goes on. */
	if (ioctl(vms[n].fd, KVM_GET_DIRTY_LOG, &log))
		printf("KVM_GET_DIRTY_LOG of memslot %u: %s\n", number, strerror(errno));
	for (uint64_t page = 0; page < pages_of(n, i); page++)
		if (bitmap[page / 64] >> (page % 64) & 1) {
			set_of(n, SEEN, i)[page] = 1;
			if (into >= 0)
				set_of(n, into, i)[page] = 1;
		}
	free(bitmap);
}

/* Clears what GET showed, or all. */
UNUSED static void clear(int n, uint32_t number, uint64_t first, uint64_t count, int all)
{
	int i = index_of(n, number);
	uint64_t *bitmap = calloc((count + 63) / 64 + 1, 8);
	struct kvm_clear_dirty_log log = { .slot = number, .num_pages = count, .first_page = first, .dirty_bitmap = bitmap };

	for (uint64_t page = first; page < first + count; page++)
		if (all || set_of(n, SEEN, i)[page]) {
			bitmap[(page - first) / 64] |= 1ull << ((page - first) % 64);
			set_of(n, SEEN, i)[page] = 0;
		}
	if (ioctl(vms[n].fd, KVM_CLEAR_DIRTY_LOG, &log))
		printf("KVM_CLEAR_DIRTY_LOG of memslot %u: %s\n", number, strerror(errno));
	free(bitmap);
}

/* Harvests a ring, or all of them in order. */
UNUSED static void collect(int n, int only, uint64_t max, int into)
{
	for (int id = 0; id < MOST_VCPUS; id++) {
		uint64_t count;

		if (!vms[n].vcpus[id].ring || (only >= 0 && only != id))
			continue;
		count = dirty_entries(n, id, fetch_of[id], max);
		for (uint64_t k = 0; k < count; k++) {
			struct kvm_dirty_gfn *e = entry_of(n, id, fetch_of[id]++);
			int i = index_of(n, e->slot);

			if (into >= 0)
				set_of(n, into, i)[e->offset] = 1;
			owed[owed_end % 65536].slot = i;
			owed[owed_end++ % 65536].page = e->offset;
			__atomic_store_n(&e->flags, 2, __ATOMIC_RELEASE);
		}
	}
}

static void count_reset(int n, long long ret)
{
	for (; ret > 0 && owed_first < owed_end; ret--, owed_first++) {
		int i = owed[owed_first % 65536].slot;

		if (!counted[i])
			counted[i] = calloc(pages_of(n, i) + 1, 1);
		counted[i][owed[owed_first % 65536].page] = 1;
	}
}

UNUSED static void reset(int n)
{
	long long ret = ioctl(vms[n].fd, KVM_RESET_DIRTY_RINGS, 0);

	if (ret < 0)
		die("KVM_RESET_DIRTY_RINGS");
	count_reset(n, ret);
}

/* The same with signals from some time on: once it is cut short, what it has counted is told from what it has not come to. */
UNUSED static void reset_with_signal(int n)
{
	struct itimerval timer = { { 0, 50 }, { 0, delay_us } }, never = { { 0, 0 }, { 0, 0 } };
	uint64_t harvested = owed_end - owed_first;
	long long ret;

	setitimer(ITIMER_REAL, &timer, NULL);
	ret = ioctl(vms[n].fd, KVM_RESET_DIRTY_RINGS, 0);
	setitimer(ITIMER_REAL, &never, NULL);
	if (ret < 0)
		ret = 0;
	aims_at_cut = 1;
	was_cut = ret > 0 && (uint64_t)ret < harvested;
	/* The next attempt aims better. */
	if (!was_cut)
		delay_us = ret ? delay_us * 2 / 3 + 1 : delay_us * 3 / 2 + 1;
	count_reset(n, ret);
	if (was_cut)
		printf("a signal cut KVM_RESET_DIRTY_RINGS short: it counted %lld of %llu entries as reset\n", ret,
		       (unsigned long long)harvested);
}

/* Lets a guest run its program to the end, whatever it leaves for on the way. */
static void run_to_its_end(int n, int id)
{
	struct vcpu *vcpu = &vms[n].vcpus[id];

	for (int exits = 0; exits < 100000; exits++) {
		alarm(10);
		int ret = ioctl(vcpu->fd, KVM_RUN, 0);
		alarm(0);
		if (ret < 0)
			die("KVM_RUN");
		if (is_done(vcpu)) {
			vcpu->run->immediate_exit = 1;
			ret = ioctl(vcpu->fd, KVM_RUN, 0);
			vcpu->run->immediate_exit = 0;
			return;
		}
		if (vcpu->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL)
			return;
		if (vcpu->run->exit_reason != KVM_EXIT_MMIO)
			die("an exit that no schedule has");
	}
	die("a guest that does not end");
}

/* `bytes`: 8 for a store, 0 for a load, COPY for a string instruction that KVM emulates. */
UNUSED static void access_pages(int n, int id, uint32_t number, uint64_t first, uint64_t count, uint64_t bytes)
{
	struct vm *vm = &vms[n];
	struct slot *slot = slot_of(vm, number);
	uint64_t entry[2] = { slot ? slot->gpa + first * PAGE : 0, count };

	if (!slot)
		die("a memslot that is not there");
	memcpy(vm->own + LISTS + id * PAGE, entry, 16);
	begin(vm, &vm->vcpus[id], id, 1, bytes, bytes == COPY ? HOLE : ++value);
	run_to_its_end(n, id);
}

/* As many stores as bring a ring to just below its soft limit. */
UNUSED static void fill_ring(int n, int id, uint32_t number, uint64_t first)
{
	uint64_t used = dirty_entries(n, id, fetch_of[id], ~0ull);
	uint64_t room = vms[n].vcpus[id].ring_entries - 66;

	if (used < room)
		access_pages(n, id, number, first, room - used, 8);
}

/* One string instruction that copies a page from where no memory is: KVM stores its elements one by one. */
UNUSED static void copy_string(int n, int id, uint32_t number, uint64_t first)
{
	uint64_t used = dirty_entries(n, id, fetch_of[id], ~0ull);
	uint64_t *before = calloc(used + 1, sizeof(*before));

	for (uint64_t k = 0; k < used; k++)
		before[k] = entry_of(n, id, fetch_of[id] + k)->offset;
	access_pages(n, id, number, first, 1, COPY);
	for (uint64_t k = 0; k < used; k++)
		overwritten += entry_of(n, id, fetch_of[id] + k)->offset != before[k];
	if (overwritten)
		printf("%llu entries that nobody has harvested are written over: the ring overflowed\n",
		       (unsigned long long)overwritten);
	free(before);
}

/* Pages that differ from the copy and that nobody will copy any more; of a RESET that was cut short, those that it counted. */
UNUSED static uint64_t lost_pages(int n)
{
	uint64_t lost = 0, shown = 0;

	for (int i = 0; i < MOST_SLOTS; i++)
		for (uint64_t page = 0; page < pages_of(n, i); page++) {
			static const uint8_t zeros[PAGE];
			struct slot *slot = &vms[n].slots[i];
			const uint8_t *there = slot->copies[page] ? slot->copies[page] : zeros;

			if (slot->number == OWN_SLOT || !memcmp(page_of(n, slot->number, page), there, PAGE))
				continue;
			if (sets[PENDING][i] && sets[PENDING][i][page])
				continue;
			if (aims_at_cut && !(was_cut && counted[i] && counted[i][page]))
				continue;
			if (shown++ < 8)
				printf("page %llu of memslot %u differs from the copy, and nobody is told: it is lost\n",
				       (unsigned long long)page, slot->number);
			lost++;
		}
	if (shown > 8)
		printf("and %llu more\n", (unsigned long long)(shown - 8));
	return lost;
}
