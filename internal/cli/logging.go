package cli

import (
	"fmt"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// logFlags say what is logged, and how.
type logFlags struct {
	format, level string
}

func (f *logFlags) add(to *pflag.FlagSet) {
	to.StringVar(&f.format, "log-format", "json", "json or text")
	to.StringVar(&f.level, "log-level", "info", "debug, info, warn or error; debug shows every change to the kernel")
}

// logger makes the logger that the flags ask for the one that everything in the process uses.
func (f *logFlags) logger() (logr.Logger, error) {
	level, err := zapcore.ParseLevel(f.level)
	if err != nil {
		return logr.Logger{}, fmt.Errorf("--log-level %q is not known: debug, info, warn or error", f.level)
	}
	config := zap.NewProductionConfig()
	switch f.format {
	case "json":
		config.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	case "text":
		config = zap.NewDevelopmentConfig()
		config.EncoderConfig.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
	default:
		return logr.Logger{}, fmt.Errorf("--log-format %q is not known: json or text", f.format)
	}
	config.Level = zap.NewAtomicLevelAt(level)
	config.Sampling = nil // a log that leaves lines out cannot say who was denied
	config.DisableStacktrace = true
	z, err := config.Build()
	if err != nil {
		return logr.Logger{}, fmt.Errorf("setting up the log: %w", err)
	}
	logger := zapr.NewLogger(z)
	ctrl.SetLogger(logger)
	klog.SetLogger(logger.WithName("client"))
	return logger, nil
}
