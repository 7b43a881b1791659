/* stub */
#include "postgres.h"
#include "cluster/register.h"
const RaRegister ra_register_zookeeper = {.name = "zookeeper"};
