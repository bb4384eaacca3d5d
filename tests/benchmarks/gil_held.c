/* How much of the time CPython's lock is held: a thread without it looks at it every 50 microseconds or so.

   Where the lock stands is CPython's own affair, so this is compiled for the one that runs, with its internal headers. */

#define Py_BUILD_CORE 1
#include <Python.h>
#include <internal/pycore_interp.h>
#include <internal/pycore_runtime.h>
#include <pthread.h>
#include <time.h>

static const volatile int *locked;
static volatile int stopped;
static unsigned long looks, held;
static pthread_t thread;

static void *look(void *unused) {
  struct timespec pause = {0, 20000};
  while (!stopped) {
    looks++;
    held += *locked == 1;
    nanosleep(&pause, 0);
  }
  return 0;
}

/* Call it with the lock. */
void begin(void) {
#if PY_VERSION_HEX >= 0x030C0000
  locked = (const volatile int *)&PyInterpreterState_Get()->ceval.gil->locked;
#else
  locked = (const volatile int *)&_PyRuntime.ceval.gil.locked;
#endif
  stopped = 0;
  looks = held = 0;
  pthread_create(&thread, 0, look, 0);
}

/* The share of looks that found it held; call it without the lock. */
double end(void) {
  stopped = 1;
  pthread_join(thread, 0);
  return looks ? (double)held / looks : 0;
}
