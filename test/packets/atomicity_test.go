package packets

import "io"

const enforcerEnv = "RINGFENCE_PACKETS_ENFORCER"

func enforcerProcess(io.Reader, io.Writer) int { return 1 }
