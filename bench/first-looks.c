/*
 * First looks of many programs at once: THREADS threads, each of which asks for COUNT names that nobody has asked for before.
 *
 *   gcc -O2 -pthread -o first-looks bench/first-looks.c && ./first-looks DIR THREADS COUNT
 *
 * The names are absent ones ("absent-PID-N"), so that each is one LOOKUP; `fuse-readers.mjs` answers the same names.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *dir;
static int count;

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

struct job {
	int id;
	double *latency;
};

static void *run(void *argument)
{
	struct job *job = argument;
	char path[4096];
	struct stat found;
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof path, "%s/absent-%d-%d", dir, getpid(), job->id * count + i);
		double begin = now_us();
		stat(path, &found);
		job->latency[i] = now_us() - begin;
	}
	return 0;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	int threads = argc == 4 ? atoi(argv[2]) : 0;
	count = argc == 4 ? atoi(argv[3]) : 0;
	if (threads < 1 || threads > 64 || count < 1) {
		fprintf(stderr, "usage: first-looks DIR THREADS COUNT\n");
		return 2;
	}
	dir = argv[1];
	long all = (long)threads * count;
	double *latency = malloc(sizeof(double) * all);
	struct job jobs[64];
	pthread_t ids[64];
	double begin = now_us();
	for (int i = 0; i < threads; i++) {
		jobs[i] = (struct job){i, latency + (long)i * count};
		pthread_create(&ids[i], 0, run, &jobs[i]);
	}
	for (int i = 0; i < threads; i++) pthread_join(ids[i], 0);
	double took = now_us() - begin;
	qsort(latency, all, sizeof *latency, by_size);
	printf("%d threads: %.0f looks/s, p50 %.1f us, p99 %.1f us, longest %.0f us\n", threads, all / took * 1e6, latency[all / 2],
		latency[all * 99 / 100], latency[all - 1]);
	return 0;
}
