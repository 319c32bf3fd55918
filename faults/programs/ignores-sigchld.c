// A library that Node.js loads: has the system throw away how children end.
#include <signal.h>

void *napi_register_module_v1(void *env, void *exports) {
  signal(SIGCHLD, SIG_IGN);
  return exports;
}
